"""What a line of an engine's log says: how far the engine is, and what to show of it.

    (EngineCore pid=5241) INFO 11-23 15:32:25 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: ...
    process               level time           source       the text that is shown

The gateway's and other programs' lines have no such head and are shown as they are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from baton.local.state import Phase

HEADER = "---- baton: "
"""begins the line that is written before every start of a process"""

_HEAD = re.compile(
    r"^(?:\((?P<process>\w[\w -]*?)(?: pid=\d+)?\) )?(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) )?"
    r"(?:\d\d-\d\d \d\d:\d\d:\d\d )?(?:\[[\w./]+:\d+\] )?(?P<text>.*)$"
)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|[\x00-\x08\x0b-\x1f\x7f]")
_LOADING = re.compile(
    r"Initializing a V\d LLM engine|Starting to load model|Loading (?:safetensors|weights|pt)|Resolved architecture"
    r"|Initializing NIXL|Registering KV_Caches|init engine \("
)
_DULL = re.compile(
    r"^\W*$|█|▄▀|FutureWarning|DeprecationWarning|^  +\S|\bWARNING\b|SECURITY WARNING|\x22(?:GET|POST) /"
    r"|^Triton is|^Route: |non-default args|^---- baton: "
)


def phase_in(line: str) -> Phase | None:
    """The phase a line of the process's own is proof of, if it is of any."""
    return Phase.LOADING if _LOADING.search(line) and not line.startswith(HEADER) else None


def telling(line: str) -> str | None:
    """The part of a line worth a place on the screen; None for banners, warnings and the noise of polling."""
    line = _CONTROL.sub("", line.rstrip())
    found = _HEAD.match(line)
    if found is None or _DULL.search(line) or found["level"] in ("DEBUG", "WARNING"):
        return None
    text = re.sub(r"^Initializing a (V\d) LLM engine.*", r"Initializing a \1 LLM engine", found["text"].strip())
    return text[:200] or None


_EXIT_NOISE = re.compile(r"nanobind: |^ - (?:leaked |\.\.\. skipped)|nanobind\.readthedocs|resource_tracker: ")


class LogTail:
    """Reads what was added to a log since the last look; starts at the end that the file has when first seen."""

    max_bytes = 256 * 1024
    """of one look; older bytes are passed over"""

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        self.path = path
        self._inode = 0
        self._offset = 0
        self._partial = b""
        if not from_start and path.exists():
            stat = path.stat()
            self._inode, self._offset = stat.st_ino, stat.st_size

    def new_lines(self) -> list[str]:
        """Complete lines added since the last call; a file that was replaced or cut is read from its start."""
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_ino != self._inode or stat.st_size < self._offset:
                    self._inode, self._offset, self._partial = stat.st_ino, 0, b""
                if stat.st_size - self._offset > self.max_bytes:
                    self._offset, self._partial = stat.st_size - self.max_bytes, b""
                file.seek(self._offset)
                added = file.read(self.max_bytes)
        except FileNotFoundError:
            return []
        self._offset += len(added)
        *lines, self._partial = (self._partial + added).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


def last_words(path: Path, count: int) -> list[str]:
    """The last `count` lines of a log that may say why it ended: without blank lines and what libraries say on exit."""
    said = [line for line in last_lines(path, 1000) if line.strip() and not _EXIT_NOISE.search(line)]
    return said[-count:]


def last_lines(path: Path, count: int) -> list[str]:
    """The last `count` lines of a file, [] if there is none; reads at most its last mebibyte."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - (1 << 20)))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return text.splitlines()[-count:] if count else []
