"""What a person sees while it starts."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from baton.local.progress import Progress, Row, changes, crash_report, rows_of, table
from baton.local.state import ChildState, Crash, Phase, ProcessId, State

CRASH = Crash(at=1012.0, how="exit code 3", last_lines=("Traceback", "ValueError: [no] flag"), restart_in_s=2.0)


def child(name: str, phase: Phase, since: float, detail: str = "", crash: Crash | None = None) -> ChildState:
    log = Path("/logs/x.log")
    return ChildState(name=name, role=None, url="u", log=log, phase=phase, since=since, detail=detail, last_crash=crash)


def state(*children: ChildState) -> State:
    return State(
        run_id="f.r",
        name="t",
        recipe=Path("r"),
        recipe_digest="d",
        model="m",
        gateway_url="u",
        workers_file=Path("w"),
        supervisor=ProcessId(pid=1, create_time=1.0),
        started_at=1000.0,
        children=children,
    )


LOADING = state(child("prefill-0", Phase.LOADING, 1010.0, "Loading weights"), child("gateway", Phase.WARMING, 1001.0))
READY = state(child("prefill-0", Phase.READY, 1033.4), child("gateway", Phase.READY, 1033.4))


def text_of(thing: object, width: int = 60) -> str:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(thing)
    return console.export_text()


def test_seconds_run_until_ready() -> None:
    """A phase's seconds run on; a ready process shows how long it took to get there."""
    assert [row.seconds for row in rows_of(LOADING, 1015.0)] == [5.0, 14.0]
    assert [round(row.seconds, 1) for row in rows_of(READY, 9999.0)] == [33.4, 33.4]


def test_a_line_per_process() -> None:
    """Name, phase, seconds and the last telling line, cut to the terminal's width, brackets as they are."""
    rows = [*rows_of(LOADING, 1015.0), Row(name="decode-0", phase=Phase.CRASHED, seconds=0.4, detail="[x] " + "y" * 80)]
    lines = text_of(table(rows)).splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["prefill-0", "loading", "5", "s"],
        ["gateway", "warming", "14", "s"],
        ["decode-0", "crashed", "0", "s"],
    ]
    assert lines[0].rstrip().endswith("Loading weights")
    assert "[x] yyy" in lines[2]
    assert all(len(line) <= 60 for line in lines)


def test_a_crash_is_told_with_its_last_lines() -> None:
    """How it ended, what it last said, when it is tried again, where all of it is."""
    text = text_of(crash_report(child("decode-0", Phase.CRASHED, 1012.0, crash=CRASH)), width=100)
    assert text.splitlines() == [
        "decode-0 crashed (exit code 3); it starts again in 2 s",
        "  decode-0 | Traceback",
        "  decode-0 | ValueError: [no] flag",
        "  all of it: /logs/x.log",
    ]


def test_changes_of_phase_only() -> None:
    """A new detail alone is no line; the seconds count from the start of the run."""
    assert changes(None, LOADING) == [
        "   10.0 s  prefill-0    loading    Loading weights",
        "    1.0 s  gateway      warming",
    ]
    assert changes(LOADING, LOADING) == []
    assert changes(LOADING, READY)[0] == "   33.4 s  prefill-0    ready"


def test_without_a_terminal_there_is_a_plain_line_per_change() -> None:
    """A log file or CI gets no escape codes, each phase once, each crash once."""
    out = io.StringIO()
    crashed = state(child("prefill-0", Phase.CRASHED, 1012.0, "exit code 3", CRASH))
    restarted = state(child("prefill-0", Phase.STARTING, 1014.0, "", CRASH))
    with Progress(Console(file=out, width=40), lambda: 1015.0) as progress:
        progress.show_installing("Collecting torch", 1000.0)
        progress.show_installing("Downloading torch", 1000.0)
        progress.installed()
        for each in (LOADING, LOADING, crashed, restarted):
            progress.show(each)
    text = out.getvalue()
    assert text.count("installing the engine") == 1
    assert text.count("prefill-0 crashed (exit code 3)") == 1
    assert "   14.0 s  prefill-0    starting" in text
    assert "\x1b" not in text


def test_on_a_terminal_one_table_is_redrawn() -> None:
    """The table shows the installer's row while there is one, then the processes."""
    console = Console(file=io.StringIO(), width=80, force_terminal=True, record=True)
    with Progress(console, lambda: 1015.0) as progress:
        progress.show_installing("Downloading torch", 1000.0)
        assert text_of(progress._render(), 80).split() == ["engine", "installing", "15", "s", "Downloading", "torch"]
        progress.installed()
        progress.show(LOADING)
        assert text_of(progress._render(), 80).split()[:4] == ["prefill-0", "loading", "5", "s"]
