"""What the gateway's server and the engines' client share of HTTP/1.1: heads, hop-by-hop names, and one cheap timer.

It knows no socket and no meaning of any header beyond framing. A head that leaves here can't hold a line that its
caller didn't mean: line breaks inside a value, and framing headers given by hand, are refused.
"""

import asyncio
from collections.abc import Callable, Mapping
from math import inf

from baton.base.errors import BugError

HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length")
)


_COMMON = (
    "Host", "User-Agent", "Accept", "Accept-Encoding", "Authorization", "Connection", "Content-Type", "Content-Length",
    "Transfer-Encoding", "Date", "Server", "X-Request-Id", "Traceparent", "Tracestate", "Keep-Alive", "Cache-Control",
)  # fmt: skip
_KEYS = {form(name).encode(): name.lower() for name in _COMMON for form in (str, str.lower)}


def header_key(name: bytes) -> str:
    """A header's name in lower case; common ones cost one look into a table."""
    return _KEYS.get(name) or name.decode("latin-1").lower()


def header_lines(headers: Mapping[str, str]) -> str:
    """Headers as lines, each ending in CRLF.

    Raises   BugError if one is of HOP_BY_HOP, or holds a stray CR, LF or NUL
    """
    if not HOP_BY_HOP.isdisjoint(map(str.lower, headers)):
        raise BugError(f"framing headers are written by the connection, not given to it: {sorted(headers)}")
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise BugError(f"a header holds a line break or NUL: {dict(headers)!r}")
    return lines


def encode_head(first_line: str, headers: Mapping[str, str], framing: str) -> bytes:
    """Bytes of one message head; `framing` is the caller's own last header lines, each ending in CRLF.

    Raises   BugError if a header is of HOP_BY_HOP, or anything holds a stray CR, LF, NUL or a letter beyond latin-1
    """
    lines = header_lines(headers)
    if "\r" in first_line or "\n" in first_line or "\0" in first_line:
        raise BugError(f"the first line holds a line break or NUL: {first_line!r}")
    try:
        return f"{first_line}\r\n{lines}{framing}\r\n".encode("latin-1")
    except UnicodeEncodeError as error:
        raise BugError(f"a head must be latin-1: {error}") from error


class Timer:
    """A deadline that moves often and fires rarely: moving it later is one store, not a new loop timer."""

    __slots__ = ("_armed_s", "_due_s", "_expired", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._handle: asyncio.TimerHandle | None = None
        self._armed_s = self._due_s = inf

    def set(self, due_s: float) -> None:
        """Fire at `due_s`, seconds on the loop's clock, in place of any earlier wish; inf = never."""
        self._due_s = due_s
        if due_s < self._armed_s:
            self._arm()

    def clear(self) -> None:
        """Don't fire until set again; the loop timer may stay armed."""
        self._due_s = inf

    def stop(self) -> None:
        """Give the loop timer back."""
        self._due_s = self._armed_s = inf
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed_s = self._due_s
        self._handle = self._loop.call_at(self._due_s, self._fire)

    def _fire(self) -> None:
        self._handle = None
        self._armed_s = inf
        if self._loop.time() < self._due_s:
            if self._due_s < inf:
                self._arm()
            return
        self._due_s = inf
        self._expired()
