"""What the gateway knows of its workers: which answer, what they are, and which pairs have proved themselves.

Only a pair that has completed a verified hand-off since both its workers were last found may serve.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from baton.engine.vllm import Identity, VllmServer
from baton.policy.rank import Pair, RankId
from baton.recipe.recipe import Role

UNVERIFIED = "not verified yet"
"""Why a pair does not serve before its first verification has ended."""
_ELSEWHERE = Identity(engine_version="", model="", weights="", attention_backend="", block_size="", kv_cache_dtype="")
"""Of a worker that the router process has asked: what it said is known there."""


@dataclass(slots=True)
class WorkerState:
    """One worker as last seen; `generation` counts how often it was found anew."""

    server: VllmServer
    identity: Identity | None = None
    reason: str = "not asked yet"
    generation: int = 0

    @property
    def ranks(self) -> list[RankId]:
        """The ranks behind this worker's address."""
        return [RankId(self.server.worker.name, rank) for rank in self.server.worker.dp_ranks]


class Told(Protocol):
    """A router, as far as the pool speaks to it."""

    def set_pairs(self, pairs: Iterable[Pair]) -> None:
        """Which pairs may serve from now on."""

    def set_limits(self, rank: RankId, max_num_seqs: int | None, max_kv_tokens: int | None) -> None:
        """What a decode rank has room for."""

    def lost(self, rank: RankId) -> None:
        """A rank's process is gone."""


class Pool:
    """All workers and pairs of a deployment; the router is told which pairs may serve, and which ranks are gone.

    on_change   called when a worker or a pair has come, gone, or been judged
    """

    def __init__(self, servers: list[VllmServer], router: Told) -> None:
        self.workers = {server.worker.name: WorkerState(server) for server in servers}
        self.num_found = 0
        self.on_change: Callable[[], None] = lambda: None
        self._router = router
        self._found = asyncio.Event()
        self.pairs: dict[Pair, str] = {
            Pair(prefill, decode): UNVERIFIED
            for prefill in self._ranks(Role.PREFILL)
            for decode in self._ranks(Role.DECODE)
        }
        self.verified: tuple[Pair, ...] = ()

    def server(self, rank: RankId) -> VllmServer:
        """The server of a rank."""
        return self.workers[rank.worker].server

    @property
    def ranks(self) -> list[RankId]:
        """Every rank, in the order of the workers file."""
        return [rank for state in self.workers.values() for rank in state.ranks]

    def servers_there(self, role: Role) -> list[VllmServer]:
        """The servers of a role that answer."""
        return [
            state.server
            for state in self.workers.values()
            if state.server.worker.role is role and state.identity is not None
        ]

    def decode_ranks(self) -> list[RankId]:
        """Every decode rank, ready or not."""
        return self._ranks(Role.DECODE)

    def found(self, name: str, identity: Identity) -> None:
        """A worker answers, and says what it is."""
        state = self.workers[name]
        state.identity, state.reason, state.generation = identity, "", state.generation + 1
        for rank in state.ranks:
            self._router.set_limits(rank, state.server.worker.max_num_seqs, state.server.max_kv_tokens)
        for pair in self._pairs_of(name):
            self.pairs[pair] = UNVERIFIED
        self._update()
        self.num_found += 1
        found, self._found = self._found, asyncio.Event()
        found.set()

    def lost(self, name: str, reason: str) -> None:
        """A worker does not answer: none of its pairs may serve until they are verified again."""
        state = self.workers[name]
        if state.identity is not None:
            for rank in state.ranks:
                self._router.lost(rank)
        state.identity, state.reason = None, reason
        for pair in self._pairs_of(name):
            self.pairs[pair] = f"{name} is not there: {reason}"
        self._update()

    async def wait_found(self, num_found: int) -> None:
        """Return when more workers than `num_found` have been found."""
        while self.num_found == num_found:
            await self._found.wait()

    def mirror(self, workers: list[str], pairs: list[str]) -> None:
        """Take over what another pool of the same workers says: why each worker and each pair may not serve."""
        for state, reason in zip(self.workers.values(), workers, strict=True):
            state.identity, state.reason = None if reason else _ELSEWHERE, reason
        self.pairs = dict(zip(self.pairs, pairs, strict=True))
        self._update()

    def generations(self, pair: Pair) -> tuple[int, int]:
        """When both workers of a pair were last found; a result counts only if this has not changed meanwhile."""
        return self.workers[pair.prefill.worker].generation, self.workers[pair.decode.worker].generation

    def judge(self, pair: Pair, generations: tuple[int, int], reason: str) -> None:
        """Record a verification: an empty reason means verified."""
        present = all(self.workers[rank.worker].identity is not None for rank in pair)
        if present and self.generations(pair) == generations:
            self.pairs[pair] = reason
            self._update()

    def mismatch(self, pair: Pair) -> str:
        """Why the two ranks must not be paired, whatever a trial says; empty when they may."""
        mine, theirs = (self.workers[rank.worker].identity for rank in pair)
        if mine is None or theirs is None:
            return "one of them is not there"
        different = mine.difference(theirs)
        return f"not compatible: {different}" if different else ""

    def not_ready_reason(self) -> str:
        """Why no request would be served; empty when one would."""
        if self.verified:
            return ""
        gone = [name for name, state in self.workers.items() if state.identity is None]
        if gone:
            return f"waiting for {', '.join(gone)}"
        return "; ".join(f"{pair}: {reason}" for pair, reason in self.pairs.items() if reason)

    def describe(self) -> dict[str, Any]:
        """The /ready answer."""
        reason = self.not_ready_reason()
        serving = {rank.worker for pair in self.verified for rank in pair}
        return {
            "ready": not reason,
            "reason": reason,
            "workers": [
                {
                    "name": name,
                    "role": str(state.server.worker.role),
                    "url": state.server.worker.url,
                    "state": "unreachable" if state.identity is None else "ready" if name in serving else "warming",
                    "reason": state.reason,
                }
                for name, state in self.workers.items()
            ],
            "pairs": [
                {"prefill": str(pair.prefill), "decode": str(pair.decode), "verified": not reason, "reason": reason}
                for pair, reason in self.pairs.items()
            ],
        }

    def _pairs_of(self, name: str) -> list[Pair]:
        return [pair for pair in self.pairs if name in (pair.prefill.worker, pair.decode.worker)]

    def _ranks(self, role: Role) -> list[RankId]:
        return [rank for state in self.workers.values() if state.server.worker.role is role for rank in state.ranks]

    def _update(self) -> None:
        self.verified = tuple(pair for pair, reason in self.pairs.items() if not reason)
        self._router.set_pairs(self.verified)
        self.on_change()
