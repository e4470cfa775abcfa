"""The router process: it chooses for every front, keeps the pool true, and adds up what the fronts count.

What a front has reserved is given back when its link closes, however it ended.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any, NamedTuple

import msgspec

from baton.base.errors import RequestError
from baton.gateway.door import Door, Entry
from baton.gateway.link import Link
from baton.gateway.merged_metrics import merged
from baton.gateway.pool import Pool
from baton.gateway.queue import Turn
from baton.gateway.routes import Routes
from baton.policy.exact_prefixes import ExactPrefixes
from baton.policy.rank import Pair
from baton.policy.routing import Ask, Reservation, Router

_TELL_S = 2.0
"""A front that has not told its metrics by then is left out."""


class _Entering(NamedTuple):
    """A request that waits at the door."""

    task: asyncio.Task[None]
    turn: Turn


class RouterService:
    """Answers fronts (remote_router.py has the messages).

    door      admits the requests of all fronts
    routes    keeps the decisions
    metrics   this process's own, as text
    """

    def __init__(self, router: Router, pool: Pool, door: Door, routes: Routes, metrics: Callable[[], bytes]) -> None:
        self._router = router
        self._door = door
        self._pool = pool
        self._metrics = metrics
        self._ranks = pool.ranks
        self._places = {rank: place for place, rank in enumerate(self._ranks)}
        self._links: dict[Link, dict[int, Reservation | _Entering]] = {}
        self._routes = routes
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._state_due = False
        pool.on_change = self._changed

    async def start(self, path: str) -> asyncio.Server:
        """Listen on a Unix socket."""
        loop = asyncio.get_running_loop()
        return await loop.create_unix_server(self._accept, path)

    def _accept(self) -> Link:
        link = Link(self._received, self._closed)
        self._links[link] = {}
        asyncio.get_running_loop().call_soon(lambda: link.send(self._state()))
        return link

    def _closed(self, link: Link) -> None:
        for place in self._links.pop(link).values():
            self._release(place, monotonic())

    def _release(self, place: Reservation | _Entering, *fields: Any) -> None:
        if isinstance(place, Reservation):
            self._router.release(place, *fields)
            self._door.queue.wake()
        else:
            place.task.cancel()
            self._door.queue.leave(place.turn)

    def _received(self, link: Link, message: list[Any]) -> None:
        kind, number, *fields = message
        places = self._links[link]
        if kind in ("reserve", "enter"):
            self._enter(link, number, fields[-1], fields if kind == "reserve" else None)
        elif kind == "release":
            if (place := places.pop(number, None)) is not None:
                self._release(place, *fields)
        elif kind in ("prefilled", "decoding"):
            if isinstance(reservation := places.get(number), Reservation):
                told = self._router.prefilled if kind == "prefilled" else self._router.decoding
                told(reservation, *fields)
        elif kind == "left":
            self._door.settle(Entry(*number), fields[0])
        elif kind == "lost":
            self._pool.lost(number, fields[0])
        elif kind == "ask":
            self._in_background(self._answer(link, number, fields[0]))
        elif kind == "told" and number in self._asked and not self._asked[number].done():
            self._asked[number].set_result(fields[0])

    def _enter(self, link: Link, number: int, fields: list[Any] | None, asked: list[Any] | None) -> None:
        """Let a request in and, where it asks for a pair, reserve one: at once, or when its turn has come."""
        try:
            turn = self._door.knock(Entry(*fields)) if fields else None
        except RequestError as error:
            link.send(_refused(number, error))
            return
        if turn is None:
            self._entered(link, number, asked, 0.0)
        else:
            task = asyncio.get_running_loop().create_task(self._wait(link, number, asked, turn))
            self._links[link][number] = _Entering(task, turn)

    async def _wait(self, link: Link, number: int, asked: list[Any] | None, turn: Turn) -> None:
        began_s = monotonic()
        try:
            await self._door.queue.wait(turn)
        except RequestError as error:
            self._links[link].pop(number, None)
            link.send(_refused(number, error))
        else:
            self._links[link].pop(number, None)
            self._entered(link, number, asked, monotonic() - began_s)

    def _entered(self, link: Link, number: int, asked: list[Any] | None, waited_s: float) -> None:
        if asked is None:
            link.send(["entered", number, waited_s > 0])
            return
        came_s, num_tokens, max_output, chain, tokens_per_block, session, decode_alone, avoid, request_id, _ = asked
        ask = Ask(
            num_prompt_tokens=num_tokens,
            max_output_tokens=max_output,
            chain=array("Q", chain),
            tokens_per_block=tokens_per_block,
            session=session,
            decode_alone=decode_alone,
        )
        reservation = self._router.reserve(ask, came_s + waited_s, avoid)
        if reservation is None:
            link.send(["reserved", number, None])
            return
        self._links[link][number] = reservation
        decision = reservation.decision
        self._routes.add(request_id, decision)
        pair, *terms, runner_up, runner_up_s = decision
        beside = self._placed(runner_up) if runner_up else None
        fields = [self._block_size(), waited_s, *self._placed(pair), *terms, beside, runner_up_s]
        link.send(["reserved", number, fields])

    def _block_size(self) -> int:
        index = self._router.index
        return index.block_size if isinstance(index, ExactPrefixes) else 0

    def _placed(self, pair: Pair) -> tuple[int, int]:
        return self._places[pair.prefill], self._places[pair.decode]

    def _state(self) -> list[Any]:
        workers = [state.reason if state.identity is None else "" for state in self._pool.workers.values()]
        return ["state", workers, list(self._pool.pairs.values())]

    def _changed(self) -> None:
        """Tell every front, once for all changes of this turn of the loop; somebody may go on now."""
        self._door.queue.wake()
        if not self._state_due:
            self._state_due = True
            asyncio.get_running_loop().call_soon(self._tell_state)

    def _tell_state(self) -> None:
        self._state_due = False
        state = self._state()
        for link in self._links:
            link.send(state)

    async def _answer(self, link: Link, number: int, what: str) -> None:
        text = await self._merged() if what == "/metrics" else msgspec.json.encode(self._routes.explain(self._router))
        link.send(["answer", number, text])

    async def _merged(self) -> bytes:
        futures = []
        for link in self._links:
            number = next(self._numbers)
            self._asked[number] = future = asyncio.get_running_loop().create_future()
            futures.append((number, future))
            link.send(["tell", number])
        try:
            if futures:
                await asyncio.wait([future for _, future in futures], timeout=_TELL_S)
            return merged(self._metrics(), [future.result() for _, future in futures if future.done()])
        finally:
            for number, _ in futures:
                del self._asked[number]

    def _in_background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _refused(number: int, error: RequestError) -> list[Any]:
    return ["refused", number, [error.status, error.message, error.kind, error.param, error.retry_after_s]]
