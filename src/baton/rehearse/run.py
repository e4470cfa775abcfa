"""A rehearsal run: the probe in the engine's own Python, its events as they come, and an end whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_PROBE = Path(__file__).with_name("probe.py")
_POLL_S = 0.2


def run(
    python: str,
    job: Mapping[str, Any],
    env: Mapping[str, str],
    folder: Path,
    *,
    timeout_s: float,
    on_event: Callable[[dict[str, Any]], None],
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[dict[str, Any]], str]:
    """Run a job to its end and return its events and the engine's log.

    `job` without `out` and `deadline_s`, which are added. A process that outlives `timeout_s` is killed and leaves a
    last event of phase "deadline"; one that dies, of phase "died". The process and its children are gone when this
    returns or raises. Raises OSError if `python` cannot be started.
    """
    out, log = folder / "events.jsonl", folder / "engine.log"
    out.touch()
    path = folder / "job.json"
    path.write_text(json.dumps({**job, "out": str(out), "deadline_s": timeout_s * 0.9}), encoding="utf-8")
    events: list[dict[str, Any]] = []
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [python, str(_PROBE), str(path)],
            stdout=sink,
            stderr=sink,
            env={**os.environ, **env},
            start_new_session=True,
        )
        try:
            _follow(process, out, events, clock() + timeout_s, on_event, clock)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not events or events[-1]["event"] not in ("end", "failed"):
        phase = "died" if process.returncode not in (-signal.SIGKILL, None) else "deadline"
        events.append({"event": "failed", "phase": phase, "code": process.returncode, "message": ""})
    return events, log.read_text(encoding="utf-8", errors="replace")


def _follow(
    process: subprocess.Popen[bytes],
    out: Path,
    events: list[dict[str, Any]],
    end_s: float,
    on_event: Callable[[dict[str, Any]], None],
    clock: Callable[[], float],
) -> None:
    """Hand on events until the process has ended or time is up."""
    with out.open(encoding="utf-8") as source:
        while True:
            is_over = process.poll() is not None
            for line in _whole_lines(source):
                events.append(json.loads(line))
                on_event(events[-1])
            if is_over or clock() > end_s:
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)


def _whole_lines(source: Any) -> Sequence[str]:
    """Lines that are written to their end; what is not stays for the next time."""
    lines: list[str] = []
    while True:
        at = source.tell()
        line = source.readline()
        if not line.endswith("\n"):
            source.seek(at)
            return lines
        lines.append(line)
