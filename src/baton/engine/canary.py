"""A small greedy completion whose answer is known from a second source, and the test that two answers are the same.

Exact in float32: tokens equal, log-probabilities within 1e-3. In 16-bit formats two right answers may part where the
best two tokens are nearly tied: tokens must be equal up to the first position whose margin is below twice the bound,
and log-probabilities within 0.25 until there (not yet measured on a GPU).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from baton.base.errors import WorkerError
from baton.engine.kv_transfer import JsonObject

LOGPROB_BOUND = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.25}
"""Largest difference of two log-probabilities of the same token, nats, by the format of the computation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Canary:
    """One greedy request of exactly `osl` output tokens.

    `prompt` is text or token ids for /v1/completions; a list of messages for /v1/chat/completions.
    """

    name: str
    prompt: str | list[int] | list[JsonObject]
    osl: int

    @property
    def is_chat(self) -> bool:
        """Whether the prompt is a list of messages."""
        return isinstance(self.prompt, list) and isinstance(self.prompt[0], dict)

    @property
    def path(self) -> str:
        """The route it goes to."""
        return "/v1/chat/completions" if self.is_chat else "/v1/completions"

    def body(self, model: str) -> JsonObject:
        """The request's body: greedy, with token ids and the two best log-probabilities of each token."""
        prompt = (
            {"messages": self.prompt, "logprobs": True, "top_logprobs": 2}
            if self.is_chat
            else {"prompt": self.prompt, "logprobs": 2}
        )
        fixed = {"max_tokens": self.osl, "temperature": 0.0, "ignore_eos": True, "return_token_ids": True}
        return {"model": model, **prompt, **fixed}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back: output token ids, the log-probability of each, and its lead over the second best."""

    num_prompt_tokens: int
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    margins: tuple[float, ...]

    @classmethod
    def read(cls, response: JsonObject) -> Answer:
        """From an unstreamed response of either route.

        Raises   WorkerError when token ids or log-probabilities are missing, of any token
        """
        try:
            choice = response["choices"][0]
            logprobs = choice["logprobs"]
            if "content" in logprobs:
                chosen = [token["logprob"] for token in logprobs["content"]]
                best = [[top["logprob"] for top in token["top_logprobs"]] for token in logprobs["content"]]
            else:
                chosen = logprobs["token_logprobs"]
                best = [list(top.values()) for top in logprobs["top_logprobs"]]
            token_ids = choice["token_ids"]
            if not len(token_ids) == len(chosen) == len(best):
                raise ValueError(f"{len(token_ids)} ids, {len(chosen)} log-probabilities, {len(best)} of the best two")
            return cls(
                num_prompt_tokens=response["usage"]["prompt_tokens"],
                token_ids=tuple(token_ids),
                logprobs=tuple(map(float, chosen)),
                margins=tuple(_margin(top) for top in best),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise WorkerError(
                f"a completion came without token ids or log-probabilities ({error!r}): {str(response)[:300]}"
            ) from error


def difference(got: Answer, reference: Answer, dtype: str) -> str:
    """Why two answers to one canary are not the same; empty when they are.

    `got` may be shorter than `reference` only if it was asked for less: the caller cuts the reference first.
    """
    bound = LOGPROB_BOUND[dtype]
    if got.num_prompt_tokens != reference.num_prompt_tokens:
        return f"prompts of {got.num_prompt_tokens} and {reference.num_prompt_tokens} tokens"
    pairs = zip_longest(got.token_ids, reference.token_ids)
    for i, (mine, theirs) in enumerate(pairs):
        if mine != theirs:
            near_tie = dtype != "float32" and i < len(reference.margins) and reference.margins[i] < 2 * bound
            return "" if near_tie else f"output token {i} is {mine}, the reference has {theirs}"
        if abs(got.logprobs[i] - reference.logprobs[i]) > bound:
            return (
                f"log-probability of output token {i} is {got.logprobs[i]:.5f}, the reference has "
                f"{reference.logprobs[i]:.5f} (bound {bound:g})"
            )
    return ""


def head(answer: Answer, num_tokens: int) -> Answer:
    """The answer cut to its first tokens."""
    return Answer(
        num_prompt_tokens=answer.num_prompt_tokens,
        token_ids=answer.token_ids[:num_tokens],
        logprobs=answer.logprobs[:num_tokens],
        margins=answer.margins[:num_tokens],
    )


def _margin(best: list[float]) -> float:
    ranked = sorted(best, reverse=True)
    return ranked[0] - ranked[1] if len(ranked) > 1 else float("inf")
