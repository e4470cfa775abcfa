"""The tokens that wait in a prefill pool at the start of each step: an embedded Markov chain, solved.

Bulk service with a step that depends on what it takes (N. T. J. Bailey 1954, On queueing processes with bulk service,
for fixed steps): the backlog after a step is what the step left and what arrived meanwhile. Arrivals in a step are a
Poisson number of equal parcels with the mean and the variance of the real ones (peakedness: W. S. Hayward, in
Fredericks 1980).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from baton.perf.balance import Balance
from baton.perf.queueing import Floats, poisson

_STATES = 88
_COUNTS = 64
"""numbers of arrivals told apart; more are taken in strides, which a Poisson law so wide does not notice"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Steps as arriving prompts meet them, one entry for every backlog at a step's start and number of arrivals in it.

    weights: prompts that arrive in such steps. steps_s: seconds of the step. left: tokens it leaves. arrived: prompts
    that arrive in it. idle: weight of the prompts that find nothing running.
    """

    weights: Floats
    steps_s: Floats
    left: Floats
    arrived: Floats
    idle: float


def backlog(
    balance: Balance, step_s: Callable[[Floats], Floats], rate_per_s: float, bursts: float, load: float
) -> Backlog:
    """Return what arrivals meet at `rate_per_s`.

    bursts: variance over mean of the number that arrives. load: the rate's share of what the pool can do, below 1.
    """
    mean, capacity = balance.mean, balance.num_ranks * balance.max_tokens
    full_s = float(step_s(np.array([balance.max_tokens]))[0])
    parcel = bursts + balance.met / mean - 1
    reach = capacity + rate_per_s * full_s * mean + parcel * mean * (1 + 4 * load / (1 - load))
    grain = max(mean if balance.is_whole and balance.max_tokens % mean == 0 else mean / 4, reach / (_STATES - 1))
    if grain < mean:
        grain = mean / math.floor(mean / grain)
    tokens = np.arange(math.ceil(min(_STATES, reach / grain + 1))) * grain
    steps = step_s(np.minimum(balance.highest(tokens), balance.max_tokens))
    left = tokens - balance.served(tokens)
    means = rate_per_s * steps / parcel
    most = float(means.max())
    highest = most + 6 * math.sqrt(most) + 8
    counts = np.arange(0.0, highest, math.ceil(highest / _COUNTS))
    chances = poisson(means, counts)
    chain = _spread((left[:, None] + parcel * mean * counts) / grain, chances)
    chain[0] = _spread((balance.new / grain)[None, :], balance.shares[None, :], len(tokens))[0]
    found = _stationary(chain)
    arrived = parcel * counts
    weights = found[1:, None] * chances[1:] * arrived
    state, number = np.nonzero(weights > 3e-5 * weights.max())
    state, weights = state + 1, weights[state, number]
    return Backlog(weights, steps[state], left[state], arrived[number], float(found[0]))


def _spread(places: Floats, chances: Floats, states: int = 0) -> Floats:
    """Return rows of chances laid on a grid, what lies between two points shared by them so that the mean stays."""
    rows, states = len(places), states or len(places)
    places = np.minimum(places, states - 1 - 1e-9)
    below = places.astype(np.intp)
    upper = chances * (places - below)
    flat = (below + np.arange(rows)[:, None] * states).ravel()
    laid = np.bincount(flat, (chances - upper).ravel(), rows * states)
    laid += np.bincount(flat + 1, upper.ravel(), rows * states)
    return np.asarray(laid.reshape(rows, states))


def _stationary(chain: Floats) -> Floats:
    balance = chain.T - np.eye(len(chain))
    balance[-1] = 1.0
    whole = np.zeros(len(chain))
    whole[-1] = 1.0
    return np.asarray(np.maximum(0.0, np.linalg.solve(balance, whole)))
