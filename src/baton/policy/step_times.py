"""How long a rank takes for its work, learnt from what it has been seen to take; every figure in seconds.

    prefill    a + b * tokens + c * tokens * context     tokens computed, mean context of one of them
    decode     d0 + d1 * requests + d2 * KV tokens       one step of a rank's whole batch
    transfer   t0 + t1 * tokens                          KV from a prefill rank to a decode rank

Least squares of relative errors over samples that are forgotten exponentially, held by a little weight to the shape of
what is known beforehand (ridge regression), no coefficient below zero: a long prompt counts no more than a short one,
and causes that never varied apart keep their proportion. It starts at figures of an H200, so that the first request is
routed sensibly; a few dozen requests replace them.
"""

from __future__ import annotations

from collections.abc import Sequence

_FORGET = 0.98
"""About the last fifty samples decide."""
_MAX_SURPRISE = 4.0
"""A sample counts as at most this many times, and at least one part in as many of, what was predicted."""
_PRIOR_WEIGHT = 0.005
"""of what is known beforehand, in samples"""


class Fit:
    """A sum of coefficient times feature; `prior` are the coefficients to begin with, all above zero."""

    __slots__ = ("_moments", "_prior", "_products", "_targets", "_weight", "coefficients", "num_samples")

    def __init__(self, prior: Sequence[float]) -> None:
        self.coefficients = list(prior)
        self.num_samples = 0
        self._prior = tuple(prior)
        self._products = [[0.0] * len(prior) for _ in prior]
        self._moments = [0.0] * len(prior)
        self._targets = self._weight = 0.0

    def predict(self, features: Sequence[float]) -> float:
        """The value expected of these features; never negative."""
        return sum([c * x for c, x in zip(self.coefficients, features, strict=True)])

    def learn(self, features: Sequence[float], value: float) -> None:
        """Take a sample."""
        predicted = self.predict(features)
        if predicted > 0:
            value = min(max(value, predicted / _MAX_SURPRISE), predicted * _MAX_SURPRISE)
        # In shares of what the prior expects: they sum to 1, and the coefficients become multiples of the prior's.
        expected = [c * x for c, x in zip(self._prior, features, strict=True)]
        whole = sum(expected)
        shares, target = [part / whole for part in expected], value / whole
        for i, share in enumerate(shares):
            self._moments[i] = _FORGET * self._moments[i] + share * target
            row = self._products[i]
            for j, other in enumerate(shares):
                row[j] = _FORGET * row[j] + share * other
        self._weight = _FORGET * self._weight + 1.0
        self._targets = _FORGET * self._targets + target
        self.coefficients = self._solved(self._targets / self._weight)
        self.num_samples += 1

    def _solved(self, scale: float) -> list[float]:
        """The coefficients that fit best, those that would be negative left at zero.

        scale   how many times as long as the prior says everything takes on the whole
        """
        free = list(range(len(self._prior)))
        found = [0.0] * len(self._prior)
        while free:
            rows = [
                [self._products[i][j] + (_PRIOR_WEIGHT if i == j else 0.0) for j in free]
                + [self._moments[i] + _PRIOR_WEIGHT * scale]
                for i in free
            ]
            solution = _eliminated(rows)
            worst = min(range(len(free)), key=solution.__getitem__)
            if solution[worst] >= 0:
                for i, value in zip(free, solution, strict=True):
                    found[i] = self._prior[i] * value
                break
            del free[worst]
        return found


def _eliminated(rows: list[list[float]]) -> list[float]:
    """Solve a small positive definite system, which needs no pivoting; the last column is the right-hand side."""
    size = len(rows)
    for i in range(size):
        for k in range(i + 1, size):
            factor = rows[k][i] / rows[i][i]
            for j in range(i, size + 1):
                rows[k][j] -= factor * rows[i][j]
    solution = [0.0] * size
    for i in reversed(range(size)):
        known = sum([rows[i][j] * solution[j] for j in range(i + 1, size)])
        solution[i] = (rows[i][size] - known) / rows[i][i]
    return solution


class StepTimes:
    """What the ranks of a deployment take; one model a pool, since a pool's ranks are alike."""

    def __init__(self) -> None:
        # One rank of 16 of DeepSeek-R1 on an H200, dummy weights, no all2all, vLLM 0.22.1: prefill 13.2K tokens/s,
        # decode 2,602 / 4,126 / 5,760 tokens/s at batches of 64 / 128 / 256. KV: 70 KB a token, at 25 GB/s.
        self._prefill = Fit((0.01, 0.076, 0.0005))
        self._local = Fit((0.02, 0.15, 0.0005))
        self._decode = Fit((0.018, 0.0103, 0.001))
        self._transfer = Fit((0.005, 0.0028))

    def prefill_s(self, num_tokens: float, num_cached: float) -> float:
        """A prefill rank computes `num_tokens` behind `num_cached` that it has."""
        a, b, c = self._prefill.coefficients
        return a + b * num_tokens / 1e3 + c * num_tokens * (num_cached + num_tokens / 2) / 1e6

    def local_prefill_s(self, num_tokens: float, num_cached: float) -> float:
        """A decode rank does, in chunks between its steps."""
        a, b, c = self._local.coefficients
        return a + b * num_tokens / 1e3 + c * num_tokens * (num_cached + num_tokens / 2) / 1e6

    def step_s(self, num_requests: float, num_kv_tokens: float) -> float:
        """One decode step of a batch."""
        a, b, c = self._decode.coefficients
        return a + b * num_requests / 100 + c * num_kv_tokens / 1e6

    def transfer_s(self, num_tokens: float) -> float:
        """The KV of `num_tokens` goes from rank to rank."""
        a, b = self._transfer.coefficients
        return a + b * num_tokens / 1000

    def saw_prefill(self, num_tokens: float, num_cached: float, took_s: float) -> None:
        """A prefill took this long, without its wait."""
        self._prefill.learn(_prompt(num_tokens, num_cached), took_s)

    def saw_local_prefill(self, num_tokens: float, num_cached: float, took_s: float) -> None:
        """A decode rank took this long to the first token of a prompt it computed."""
        self._local.learn(_prompt(num_tokens, num_cached), took_s)

    def saw_step(self, num_requests: float, num_kv_tokens: float, took_s: float) -> None:
        """A step of a batch took this long."""
        self._decode.learn((1.0, num_requests / 100, num_kv_tokens / 1e6), took_s)

    def saw_transfer(self, num_tokens: float, took_s: float) -> None:
        """A transfer took this long."""
        self._transfer.learn((1.0, num_tokens / 1000), took_s)

    def as_dict(self) -> dict[str, object]:
        """The models as they stand, for a person: seconds, and seconds a token or request."""
        prefill, local, decode, transfer = (
            fit.coefficients for fit in (self._prefill, self._local, self._decode, self._transfer)
        )
        return {
            "prefill_s": {"base": prefill[0], "per_token": prefill[1] / 1e3, "per_token_and_context": prefill[2] / 1e6},
            "local_prefill_s": {"base": local[0], "per_token": local[1] / 1e3, "per_token_and_context": local[2] / 1e6},
            "decode_step_s": {"base": decode[0], "per_request": decode[1] / 100, "per_kv_token": decode[2] / 1e6},
            "transfer_s": {"base": transfer[0], "per_token": transfer[1] / 1e3},
            "num_samples": {
                "prefill": self._prefill.num_samples,
                "local_prefill": self._local.num_samples,
                "decode": self._decode.num_samples,
                "transfer": self._transfer.num_samples,
            },
        }


def _prompt(num_tokens: float, num_cached: float) -> tuple[float, float, float]:
    return 1.0, num_tokens / 1e3, num_tokens * (num_cached + num_tokens / 2) / 1e6
