"""What the server and the client share of HTTP/1.1."""

import asyncio
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton.base.errors import BugError
from baton.base.http1 import HOP_BY_HOP, Timer, encode_head


def test_a_head_is_its_lines() -> None:
    head = encode_head("GET / HTTP/1.1", {"a": "1", "b": "ü"}, "host: h\r\n")
    assert head == b"GET / HTTP/1.1\r\na: 1\r\nb: \xfc\r\nhost: h\r\n\r\n"


@pytest.mark.parametrize("name", [*HOP_BY_HOP, "Content-Length", "TRANSFER-ENCODING"])
def test_framing_cannot_be_given_by_hand(name: str) -> None:
    with pytest.raises(BugError, match="framing"):
        encode_head("GET / HTTP/1.1", {name: "1"}, "")


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    st.text(max_size=8),
)
def test_no_head_holds_a_line_that_was_not_meant(headers: dict[str, str], first_line: str) -> None:
    try:
        head = encode_head(first_line, headers, "")
    except BugError:
        return
    assert head.count(b"\n") == head.count(b"\r") == len(headers) + 2
    assert b"\0" not in head


async def test_a_timer_that_is_moved_later_fires_once_and_not_before() -> None:
    loop, fired = asyncio.get_running_loop(), asyncio.Event()
    times: list[float] = []

    def expired() -> None:
        times.append(loop.time())
        fired.set()

    timer = Timer(loop, expired)
    timer.set(loop.time())
    due_s = loop.time() + 0.02
    timer.set(due_s)
    async with asyncio.timeout(5):
        await fired.wait()
    assert times[0] >= due_s - 0.001
    assert len(times) == 1
    timer.stop()


async def test_a_timer_that_is_cleared_or_stopped_does_not_fire() -> None:
    loop, fired = asyncio.get_running_loop(), []
    cleared, stopped, never = (Timer(loop, lambda: fired.append(1)) for _ in range(3))
    cleared.set(loop.time())
    cleared.clear()
    stopped.set(loop.time())
    stopped.stop()
    never.set(inf)
    last = asyncio.Event()
    Timer(loop, last.set).set(loop.time() + 0.01)
    async with asyncio.timeout(5):
        await last.wait()
    assert not fired
    cleared.stop()
