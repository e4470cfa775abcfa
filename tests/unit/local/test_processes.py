"""Every process of a run is found by its marks, and ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from baton.local import processes
from baton.local.clock import Clock

NAP = "import time; time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); {NAP}"
RUNAWAY = f"""
import os, subprocess, sys
subprocess.Popen([sys.executable, "-S", "-c", {f"import os; os.setsid(); print('up', flush=True); {NAP}"!r}])
os._exit(0)
"""


class Spawn:
    """Starts marked processes and waits for their first line."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.started: list[subprocess.Popen[str]] = []

    def __call__(self, code: str, child: str = "a", *, marked: bool = True, speaks: bool = False) -> int:
        env = {**os.environ, **(processes.marks(self.run, child) if marked else {})}
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", code], env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.started.append(process)
        if speaks:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
        return process.pid


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    spawn = Spawn(processes.run_id(tmp_path, "one"))
    yield spawn
    for process in processes.of_folder(tmp_path):
        process.kill()
    for started in spawn.started:
        started.kill()
        started.communicate()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_descendants_that_ran_away_are_found_and_ended(spawn: Spawn, tmp_path: Path) -> None:
    """A grandchild in a session of its own, whose parent is gone, belongs to the run all the same."""
    spawn(RUNAWAY, speaks=True)
    found = processes.of_folder(tmp_path)
    assert [process.pid for process in found] != []
    assert all(process.pid != spawn.started[0].pid for process in found)
    assert processes.names(found) == ["a"]
    assert await processes.end(lambda: processes.of_folder(tmp_path), grace_s=5, clock=Clock())
    assert not any(alive(process.pid) for process in found)


async def test_others_are_left_alone(spawn: Spawn, tmp_path: Path) -> None:
    """Neither an unmarked process nor one of another folder or child is touched."""
    unmarked = spawn(NAP, marked=False)
    mine, sibling = spawn(NAP, "a"), spawn(NAP, "b")
    assert processes.of_folder(tmp_path / "other") == []
    assert [process.pid for process in processes.of_child(spawn.run, "a")] == [mine]
    assert await processes.end(lambda: processes.of_child(spawn.run, "a"), grace_s=5, clock=Clock())
    assert not alive(mine)
    assert alive(unmarked)
    assert alive(sibling)


async def test_stopping_is_bounded(spawn: Spawn, tmp_path: Path) -> None:
    """A process that ignores SIGTERM is killed when the grace is over."""
    pid = spawn(STUBBORN, speaks=True)
    before = time.monotonic()
    assert await processes.end(lambda: processes.of_folder(tmp_path), grace_s=0.2, clock=Clock())
    assert not alive(pid)
    assert 0.2 <= time.monotonic() - before < 3


async def test_hurry_cuts_the_grace_short(spawn: Spawn, tmp_path: Path) -> None:
    """The second Ctrl-C kills at once."""
    pid = spawn(STUBBORN, speaks=True)
    before = time.monotonic()
    assert await processes.end(
        lambda: processes.of_folder(tmp_path), grace_s=60, clock=Clock(), hurry=lambda: time.monotonic() > before + 0.1
    )
    assert not alive(pid)
    assert time.monotonic() - before < 3


def test_two_state_folders_never_meet(tmp_path: Path) -> None:
    """Deployments of one name in two state folders have different marks; a run's own part comes after the folder's."""
    one, two = processes.run_id(tmp_path / "a" / "t", "x"), processes.run_id(tmp_path / "b" / "t", "x")
    assert one != two
    assert processes.run_id(tmp_path / "a" / "t", "y").partition(".")[0] == one.partition(".")[0]
