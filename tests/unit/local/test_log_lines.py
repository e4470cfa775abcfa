"""Log lines: what they prove, what is shown of them, and following a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton.local.log_lines import LogTail, last_lines, phase_in, telling
from baton.local.state import Phase

CORE = "(EngineCore pid=5241) INFO 11-23 15:32:25 [core.py:133] "


@pytest.mark.parametrize(
    ("line", "phase", "shown"),
    [
        (
            CORE + "Initializing a V1 LLM engine (v0.32.0) with config: model='/m', x",
            Phase.LOADING,
            "Initializing a V1 LLM engine",
        ),
        (
            "(Worker pid=5335) INFO 11-23 15:32:36 [cpu_model_runner.py:68] Starting to load model /m...",
            Phase.LOADING,
            "Starting to load model /m...",
        ),
        (
            "(APIServer pid=1) INFO 11-23 15:32:50 [entry.py:136] Supported tasks: ['generate']",
            None,
            "Supported tasks: ['generate']",
        ),
        ("(APIServer pid=1) WARNING 11-23 15:32:16 [cpu.py:224] Triton is not installed.", None, None),
        ("(APIServer pid=5073) INFO 11-23 15:32:16 [api_utils.py:347]        █     █     █▄   ▄█", None, None),
        ('(APIServer pid=1) INFO:     127.0.0.1:5 - "GET /health HTTP/1.1" 200 OK', None, None),
        ("", None, None),
        ("\x1b[31mValueError: no such flag\x1b[0m", None, "ValueError: no such flag"),
        ("---- baton: start 1 of prefill-0: vllm serve 'Starting to load model'", None, None),
    ],
)
def test_lines_of_a_real_start(line: str, phase: Phase | None, shown: str | None) -> None:
    """vLLM's head is cut off, banners and polling stay hidden, the model's loading is noticed."""
    assert phase_in(line) is phase
    assert telling(line) == shown


def test_a_tail_gives_whole_lines_once(tmp_path: Path) -> None:
    """Half a line waits for its end; progress bars' carriage returns count as ends."""
    path = tmp_path / "a.log"
    tail = LogTail(path)
    assert tail.new_lines() == []
    path.write_bytes(b"one\ntw")
    assert tail.new_lines() == ["one"]
    with path.open("ab") as file:
        file.write(b"o\n50%\r100%\r\n")
    assert tail.new_lines() == ["two", "50%", "100%"]
    assert tail.new_lines() == []


def test_a_tail_follows_a_replaced_file(tmp_path: Path) -> None:
    """The next run writes a new file under the same name: it is read from its start."""
    path = tmp_path / "a.log"
    path.write_text("old\n")
    tail = LogTail(path)
    assert tail.new_lines() == []
    path.replace(tmp_path / "a.log.1")
    path.write_text("new, and longer than the old one\n")
    assert tail.new_lines() == ["new, and longer than the old one"]
    path.write_text("cut\n")
    assert tail.new_lines() == ["cut"]


def test_a_flood_is_passed_over(tmp_path: Path) -> None:
    """A log that grew by megabytes since the last look costs one bounded read."""
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 50 + b"\n")
    tail = LogTail(path, from_start=True)
    path.write_bytes(b"line\n" * 200_000 + b"last\n")
    lines = tail.new_lines()
    assert lines[-1] == "last"
    assert len(lines) < 60_000


def test_last_lines(tmp_path: Path) -> None:
    """The end of a file, or nothing where there is no file."""
    path = tmp_path / "a.log"
    assert last_lines(path, 3) == []
    path.write_text("a\nb\nc\nd")
    assert last_lines(path, 2) == ["c", "d"]
    assert last_lines(path, 0) == []
