"""The access log: one line of JSON for every request, without its prompt or its answer."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from datetime import datetime

import msgspec

from baton.base.errors import ConfigError
from baton.gateway.ledger import Ledger

log = logging.getLogger("baton.gateway")

_LINES_A_WRITE = 128
"""Few enough that making JSON of them holds up the event loop's thread for no more than a fraction of a millisecond."""


class AccessLine(msgspec.Struct, kw_only=True, rename={"priority_class": "class"}):
    """One request as the log has it; None is what was not known when it ended.

    time                  of its end
    outcome               last state of its hand-off; of several generations, of the first that did not complete
    api_key               the key's name, never the key
    prefill, decode       the ranks that served it
    num_output_tokens     of a stream: its events
    sent_bytes            of the answer's body
    parts_s               the ledger: seconds by part; they sum to `ttft_s`, of what is no stream to `elapsed_s`
    """

    time: datetime
    request_id: str
    path: str
    status: int
    model: str | None = None
    outcome: str | None = None
    api_key: str | None = None
    priority_class: str | None = None
    stream: bool = False
    num_prompt_tokens: int | None = None
    num_output_tokens: int | None = None
    prefill: str | None = None
    decode: str | None = None
    ttft_s: float | None = None
    elapsed_s: float | None = None
    parts_s: dict[str, float] = {}
    sent_bytes: int = 0
    client: str = ""
    trace_id: str | None = None
    error: str | None = None


class AccessLog:
    """Writes lines to a file, or to stdout for "-", from a thread of its own: a slow disk holds up no request.

    flush_s        how long a line may wait
    max_waiting    lines kept while the file takes none; those beyond are lost, and counted
    Raises         ConfigError when the file cannot be opened
    """

    def __init__(self, path: str, *, flush_s: float = 1.0, max_waiting: int = 65536) -> None:
        self._path = path
        self._flush_s = flush_s
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[AccessLine, Ledger]] = deque()
        self._num_refused = self._num_unwritten = 0
        self._reopen = self._failing = self._cut = False
        self._encoder = msgspec.json.Encoder()
        try:
            self._fd = self._open()
        except OSError as error:
            raise ConfigError(f"cannot write the access log {path}: {error.strerror}; choose another file") from error
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    @property
    def num_lines_lost(self) -> int:
        """Lines that were not written: nothing took them, or too many waited."""
        return self._num_refused + self._num_unwritten

    def write(self, line: AccessLine, ledger: Ledger) -> None:
        """Log a request that has ended; its times are read off the ledger later."""
        if len(self._waiting) < self._max_waiting:
            self._waiting.append((line, ledger))
        else:
            self._num_refused += 1

    def reopen(self) -> None:
        """Go on in a new file of the same name: whoever rotates logs has renamed the old one."""
        self._reopen = True

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits and end; what nothing takes within `timeout_s` is given up."""
        self._stopping.set()
        self._thread.join(timeout_s)

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.wait(self._flush_s):
            self._write_waiting()
        self._write_waiting()
        os.close(self._fd)

    def _write_waiting(self) -> None:
        if self._reopen:
            self._reopen = False
            self._renew()
        while self._waiting:
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), _LINES_A_WRITE))]
            self._put(self._encoder.encode_lines([_timed(line, ledger) for line, ledger in taken]))

    def _put(self, data: bytes) -> None:
        """Write whole lines; what the file does not take is lost."""
        left = whole = b"\n" + data if self._cut else data  # a line that was cut short must not swallow the next
        try:
            while left:
                left = left[os.write(self._fd, left) :]
            self._cut = self._failing = False
        except OSError as error:
            written = whole[: len(whole) - len(left)]
            if written:
                self._cut = not written.endswith(b"\n")
            self._num_unwritten += min(left.count(b"\n"), data.count(b"\n"))
            self._complain(f"lines of the access log {self._path} are lost: {error.strerror}")

    def _renew(self) -> None:
        try:
            fd = self._open()
        except OSError as error:
            self._complain(f"cannot reopen the access log {self._path}: {error.strerror}; the old file goes on")
            return
        os.close(self._fd)
        self._fd, self._cut = fd, False

    def _complain(self, what: str) -> None:
        """Say it once, until a write succeeds again."""
        if not self._failing:
            self._failing = True
            log.warning("%s", what)

    def _open(self) -> int:
        if self._path == "-":
            return os.dup(1)
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _timed(line: AccessLine, ledger: Ledger) -> AccessLine:
    line.parts_s = {name: part_us / 1e6 for name, part_us in ledger.parts_us()}
    if ledger.first_byte:
        line.ttft_s = round(ledger.ttft_s, 6)
    if ledger.ended:
        line.elapsed_s = round(ledger.elapsed_s, 6)
    return line
