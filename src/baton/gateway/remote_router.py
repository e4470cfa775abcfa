"""The router as a front sees it, which it asks over a link: one router process knows every request of all fronts.

Messages to the router process
  reserve    number, now_s, the fields of an Ask, workers to avoid, request id, Entry or nothing
  enter      number, Entry: for a request of several generations
  left       Entry, tokens used
  prefilled, decoding, release   number, now_s, and what `Router` takes besides
  lost       worker, reason
  ask        number, "/metrics" or "/debug/routes": the answer for all processes together
  told       number, text: this front's own metrics
and from it
  reserved   number, tokens a block, seconds waited and decision; or nothing
  entered    number, whether it has waited
  refused    number, what a RequestError says
  state      why each worker and each pair may not serve, in the order of the workers file
  tell       number: send your metrics
  answer     number, text
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from time import monotonic
from typing import Any

from baton.base.errors import RequestError, WorkerError
from baton.gateway.door import Entry
from baton.gateway.link import Link
from baton.policy.decision import Decision
from baton.policy.rank import Pair, RankId
from baton.policy.routing import Ask

_NOTICE_WITHIN_S = 0.002
"""Notices carry their own times, so they may wait for a message that can't."""


class RouterLost(WorkerError):
    """The router process is gone."""


class RemoteReservation:
    """A reservation that the router process holds."""

    __slots__ = ("decision", "local", "number", "pair", "waited_s")

    def __init__(self, number: int, decision: Decision, waited_s: float) -> None:
        self.waited_s = waited_s
        self.number = number
        self.decision = decision
        self.pair = decision.pair
        self.local = decision.local


class RemoteRouter:
    """What `HandoffRunner` and `Pool` need of a router; `reserve` is awaited.

    path   the router process's Unix socket
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._ranks: Sequence[RankId] = ()
        self._state_changed: Callable[[list[str], list[str]], None]
        self._metrics: Callable[[], bytes]
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._has_state = asyncio.Event()
        self.block_size = 0
        """Tokens a KV block, where the router process is told of blocks; 0 as long as it isn't."""
        self._link: Link | None = None
        self._is_lost = asyncio.Event()

    async def connect(
        self,
        ranks: Sequence[RankId],
        *,
        state_changed: Callable[[list[str], list[str]], None],
        metrics: Callable[[], bytes],
    ) -> None:
        """Connect to the router process, and wait until it has said which pairs may serve.

        ranks          every rank, in the order of the workers file
        state_changed  given why each worker, and each pair, may not serve; empty where it may
        metrics        this front's own, as text
        Raises         OSError
        """
        self._ranks, self._state_changed, self._metrics = ranks, state_changed, metrics
        loop = asyncio.get_running_loop()
        _, self._link = await loop.create_unix_connection(lambda: Link(self._received, self._closed), self._path)
        await self._has_state.wait()

    async def watch(self) -> None:
        """Wait for the end of the router process.

        Raises   RouterLost
        """
        await self._is_lost.wait()
        raise RouterLost("the router process is gone; this front stops")

    def close(self) -> None:
        """Hang up."""
        if self._link is not None:
            self._link.close()

    async def reserve(
        self, ask: Ask, now_s: float, avoid: Sequence[str] = (), request_id: str = "", entry: Entry | None = None
    ) -> RemoteReservation | None:
        """As `Router.reserve`, once `entry` has been let in; one that is cancelled meanwhile is given back.

        Raises   RouterLost, RequestError 401, 429, 503
        """
        number = next(self._numbers)
        chain = array("Q", ask.chain).tobytes()
        message = [
            "reserve", number, now_s, ask.num_prompt_tokens, ask.max_output_tokens, chain, ask.tokens_per_block,
            ask.session, ask.decode_alone, avoid, request_id, entry,
        ]  # fmt: skip
        try:
            fields = await self._answered(number, message)
        except asyncio.CancelledError:
            self._say(["release", number, monotonic(), 0, False])  # behind `reserve`, so it finds what that reserved
            raise
        if not fields:
            return None
        self.block_size, waited_s, prefill, decode, *terms, runner_up, runner_up_s = fields
        pair = Pair(self._ranks[prefill], self._ranks[decode])
        beside = Pair(self._ranks[runner_up[0]], self._ranks[runner_up[1]]) if runner_up else None
        return RemoteReservation(number, Decision._make([pair, *terms, beside, runner_up_s]), waited_s)

    async def enter(self, entry: Entry) -> bool:
        """As `Door.enter`.

        Raises   RouterLost, RequestError 401, 429, 503
        """
        number = next(self._numbers)
        try:
            return bool(await self._answered(number, ["enter", number, entry]))
        except asyncio.CancelledError:
            self._say(["release", number, monotonic(), 0, False])
            raise

    def left(self, entry: Entry, num_used: int) -> None:
        """As `Door.settle`."""
        self._say(["left", entry, num_used])

    def prefilled(
        self,
        reservation: RemoteReservation,
        now_s: float,
        num_prompt_tokens: int | None = None,
        num_cached_tokens: int | None = None,
    ) -> None:
        """As `Router.prefilled`."""
        self._say(["prefilled", reservation.number, now_s, num_prompt_tokens, num_cached_tokens])

    def decoding(self, reservation: RemoteReservation, now_s: float) -> None:
        """As `Router.decoding`."""
        self._say(["decoding", reservation.number, now_s])

    def release(
        self, reservation: RemoteReservation, now_s: float, num_output_tokens: int = 0, completed: bool = False
    ) -> None:
        """As `Router.release`."""
        self._say(["release", reservation.number, now_s, num_output_tokens, completed])

    def lost(self, rank: RankId) -> None:
        """A rank does not answer: no front should send its worker anything until it is found again."""
        self._say(["lost", rank.worker, "a front could not reach it"])

    async def ask(self, what: str) -> bytes:
        """/metrics or /debug/routes of all processes together.

        Raises   RouterLost
        """
        number = next(self._numbers)
        answer: bytes = await self._answered(number, ["ask", number, what])
        return answer

    async def _answered(self, number: int, message: list[Any]) -> Any:
        if self._link is None or self._is_lost.is_set():
            raise RouterLost("the router process is gone; this front stops")
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._link.send(message)
        try:
            return await future
        finally:
            del self._waiting[number]

    def _say(self, message: list[Any]) -> None:
        if self._link is not None:
            self._link.send(message, _NOTICE_WITHIN_S)

    def _received(self, link: Link, message: list[Any]) -> None:
        kind = message[0]
        if kind == "state":
            self._state_changed(message[1], message[2])
            self._has_state.set()
        elif kind == "tell":
            link.send(["told", message[1], self._metrics()])
        else:
            future = self._waiting.get(message[1])
            if future is None or future.done():
                return
            if kind == "refused":
                status, text, error_kind, param, retry_after_s = message[2]
                refusal = RequestError(status, text, kind=error_kind, param=param, retry_after_s=retry_after_s)
                future.set_exception(refusal)
            else:
                future.set_result(message[2])

    def _closed(self, _: Link) -> None:
        self._is_lost.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RouterLost("the router process is gone; this front stops"))

    # -- what only the router process does -------------------------------------------------------------------------

    def set_pairs(self, pairs: Iterable[Pair]) -> None:
        """The router process knows which may serve: it said so."""

    def set_limits(self, rank: RankId, max_num_seqs: int | None, max_kv_tokens: int | None) -> None:
        """The router process has read them itself."""
