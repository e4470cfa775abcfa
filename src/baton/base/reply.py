"""One request and its one reply, framed as HTTP/1.1; the connection below only carries bytes."""

import http
from collections.abc import Mapping
from typing import Protocol

from baton.base.errors import BugError
from baton.base.http1 import encode_head


class Wire(Protocol):
    """The connection a reply is written to."""

    full: bool

    @property
    def closing(self) -> bool:
        """True when no further request will be answered here."""

    def write(self, data: bytes) -> None:
        """Queue bytes until the end of this turn of the loop."""

    def flush(self) -> None:
        """Send what is queued."""

    def abort(self) -> None:
        """Cut the connection."""

    async def drain(self) -> None:
        """Wait until the client has taken enough."""


class Request:
    """One whole request; header names are lower-case, repeated ones joined by ", "; `path` is not percent-decoded."""

    __slots__ = ("body", "headers", "method", "path", "peer", "query")

    def __init__(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes, peer: str) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body = body
        self.peer = peer


class Reply:
    """The one answer to one request: `send`, or `start`, any number of `write`, then `end`."""

    __slots__ = (
        "_bodiless", "_chunked", "_connection", "_http11", "_keep_alive", "_unwritten_bytes", "ended", "sent_bytes",
        "started",
    )  # fmt: skip

    def __init__(self, connection: Wire, method: str, http11: bool, keep_alive: bool) -> None:
        self._connection = connection
        self._http11 = http11
        self._keep_alive = keep_alive and http11
        self._bodiless = method == "HEAD"
        self._chunked = False
        self._unwritten_bytes: int | None = None
        self.started = False
        self.ended = False
        self.sent_bytes = 0
        """of the body, handed to the connection"""

    def start(self, status: int, headers: Mapping[str, str], length: int | None = None) -> None:
        """Write the head; without `length` (bytes) the body is chunked, or for HTTP/1.0 ends with the connection.

        Raises   BugError on a second start, or headers that name framing or hold line breaks
        """
        self._connection.write(self._head(status, headers, length))

    def write(self, data: bytes) -> bool:
        """Queue body bytes; False asks the caller to `await drain()` before it writes on.

        Raises   BugError before `start`, after `end`, or past the length
        """
        if not self.started or self.ended:
            raise BugError(f"write outside a reply: started={self.started} ended={self.ended}")
        connection = self._connection
        self.sent_bytes += len(data)
        if self._unwritten_bytes is not None:
            self._unwritten_bytes -= len(data)
            if self._unwritten_bytes < 0:
                raise BugError(f"{-self._unwritten_bytes} bytes past the length that the reply's head promised")
        if data and not self._bodiless:
            if self._chunked:
                connection.write(b"%x\r\n%b\r\n" % (len(data), data))
            else:
                connection.write(data)
        return not connection.full

    def end(self) -> None:
        """Complete the reply; a second call does nothing.

        Raises   BugError if not started, or if the body is shorter than its length (the connection is cut)
        """
        if self.ended:
            return
        if not self.started:
            raise BugError("a reply ended before it started")
        if self._unwritten_bytes and not self._bodiless:
            self.abort()
            raise BugError(f"a reply ended {self._unwritten_bytes} bytes short of its length")
        self.ended = True
        if self._chunked and not self._bodiless:
            self._connection.write(b"0\r\n\r\n")
        self._connection.flush()

    def send(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """The whole reply in one write."""
        head = self._head(status, headers, len(body))
        self.ended, self.sent_bytes = True, len(body)
        self._connection.write(head if self._bodiless else head + body)
        self._connection.flush()

    async def drain(self) -> None:
        """Wait until the client has taken enough that at most `max_unsent_bytes` are kept here."""
        await self._connection.drain()

    def abort(self) -> None:
        """Cut the connection, so that the client sees a reply that failed, not one that ended."""
        self.started = self.ended = True
        self._connection.abort()

    @property
    def closes(self) -> bool:
        """True when the connection ends with this reply."""
        return not self._keep_alive

    def _head(self, status: int, headers: Mapping[str, str], length: int | None) -> bytes:
        if self.started:
            raise BugError(f"a second start of one reply, with status {status}")
        self._keep_alive = self._keep_alive and not self._connection.closing
        framing = "" if self._keep_alive else "connection: close\r\n"
        chunked = False
        if status < 200:
            raise BugError(f"{status} is not a final status")
        if status in (204, 304):
            self._bodiless = True
        elif length is not None:
            framing = f"content-length: {length}\r\n{framing}"
        elif self._http11:
            chunked = True
            framing = f"transfer-encoding: chunked\r\n{framing}"
        head = encode_head(f"HTTP/1.1 {status} {_reason(status)}", headers, framing)
        self._chunked, self._unwritten_bytes, self.started = chunked, length, True
        return head


def _reason(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
