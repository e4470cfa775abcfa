"""One request of a client on a stand-in: its sequences on a rank, and its answer, whole or streamed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from baton.base.reply import Reply
from baton.engine.stand_in.answers import INTERNAL, JSON, Answer, error_json
from baton.engine.stand_in.faults import Faults
from baton.engine.stand_in.rank import Rank
from baton.engine.stand_in.sequence import Finish, Sequence

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
_NO_CONTENT = {"index": 0, "message": {"role": "assistant", "content": ""}, "text": "", "finish_reason": "stop"}
_EMPTY = {"content": {"choices": [_NO_CONTENT]}, "choices": {"choices": []}}
_EVENT_STREAM = {"content-type": "text/event-stream; charset=utf-8"}


class _Over(Exception):
    """A fault has ended the answer."""


class Generation:
    """Runs `answer.sequences` on a rank and writes what comes of them.

    cleared   waits until the server's faults are cleared
    die       ends the server
    """

    def __init__(
        self,
        rank: Rank,
        faults: Faults,
        reply: Reply,
        *,
        cleared: Callable[[], asyncio.Future[None]],
        die: Callable[[], None],
    ) -> None:
        self.sequences: list[Sequence] = []
        self._rank = rank
        self._faults = faults
        self._reply = reply
        self._cleared = cleared
        self._die = die
        self._heard: deque[int] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._num_tokens = 0

    def hears(self, index: int) -> Callable[[], None]:
        """What the sequence of this place calls."""

        def heard() -> None:
            self._heard.append(index)
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

        return heard

    def abort(self) -> None:
        """End every sequence that isn't over."""
        for sequence in self.sequences:
            self._rank.abort(sequence)

    async def run(self, answer: Answer) -> None:
        """Answer; whoever leaves meanwhile takes the sequences along."""
        if (refuse := self._faults.refuse) is not None:
            self._reply.send(refuse.status, JSON, refuse.body.encode(errors="surrogateescape"))
            return
        for sequence in self.sequences:
            self._rank.add(sequence)
        try:
            if self._faults.hang_before_head:
                await self._cleared()
            if self._instead():
                return
            if answer.body.stream:
                await self._stream(answer)
            else:
                await self._whole(answer)
        finally:
            self.abort()

    def _instead(self) -> bool:
        """What a fault answers in place of the generation."""
        faults = self._faults
        if faults.answer is not None:
            self._reply.send(200, JSON, faults.answer.encode(errors="surrogateescape"))
        elif faults.empty is not None:
            self._reply.send(200, JSON, b"" if faults.empty == "body" else msgspec.json.encode(_EMPTY[faults.empty]))
        return self._reply.ended

    async def _whole(self, answer: Answer) -> None:
        while any(sequence.finish is None for sequence in self.sequences):
            await self._next()
        if any(sequence.finish is Finish.ERROR for sequence in self.sequences):
            self._reply.send(500, JSON, self._error())
        else:
            self._reply.send(200, JSON, answer.whole())

    def _error(self) -> bytes:
        return error_json(500, ENGINE_DEAD if self._rank.crashed else INTERNAL, "InternalServerError")

    async def _next(self) -> int:
        """The place of the sequence that has something new."""
        while not self._heard:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._heard.popleft()

    async def _stream(self, answer: Answer) -> None:
        reply, sequences = self._reply, self.sequences
        reply.start(200, _EVENT_STREAM)
        sent_tokens, sent_chars = [0] * len(sequences), [0] * len(sequences)
        ended = [False] * len(sequences)
        has_begun = not answer.is_chat
        try:
            while not all(ended):
                index = await self._next()
                sequence = sequences[index]
                if not has_begun and self._faults.error_after != 0:
                    has_begun = True
                    for place in range(len(sequences)):
                        reply.write(answer.first_event(place))
                if sequence.finish is Finish.ERROR:
                    self._fail()
                place = sent_tokens[index]
                sent_tokens[index] = upto = min(place + 1, len(sequence.output))
                if place < upto:
                    await self._token_faults()
                # tokens that came while a fault held the stream follow one by one: each has an id to be told
                is_last = sequence.finish is not None and upto == len(sequence.output)
                shown = sequence.text if is_last else sequence.text[: max(0, upto - _held_back(sequence))]
                text, sent_chars[index] = shown[sent_chars[index] :], max(len(shown), sent_chars[index])
                reply.write(answer.token_event(index, place, text, is_last=is_last))
                ended[index] = is_last
        except _Over:
            return
        if answer.with_usage:
            reply.write(answer.usage_event())
        if not self._faults.no_done:
            reply.write(b"data: [DONE]\n\n")
        reply.end()

    async def _token_faults(self) -> None:
        """What goes wrong in place of the next token of the stream, or before it."""
        faults, reply, num_sent = self._faults, self._reply, self._num_tokens
        self._num_tokens += 1
        if num_sent == faults.hang_after:
            await self._cleared()
        if num_sent == faults.cut_after:
            if faults.cut_inside:
                reply.write(b'data: {"id":"cmpl')
            await reply.drain()
            await asyncio.sleep(0)
            reply.abort()
            raise _Over
        if num_sent == faults.error_after:
            self._fail()
        if num_sent == faults.garbage_after:
            reply.write(b"data: {not json\n\n")
        if num_sent == faults.die_after:
            self._die()
            await asyncio.get_running_loop().create_future()

    def _fail(self) -> None:
        """A stream that has begun can only say so; it says that it is done all the same, as vLLM's do."""
        self._reply.write(b"data: " + self._error() + b"\n\ndata: [DONE]\n\n")
        self._reply.end()
        raise _Over


def _held_back(sequence: Sequence) -> int:
    """Characters that aren't shown yet, as a stop string may begin with them."""
    return max((len(stop) for stop in sequence.sampling.stops), default=1) - 1
