"""A deployment's folder: one owner, whole files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.local.run_dir import RunDir, all_runs, default_root
from baton.local.state import ProcessId, State


def state(name: str = "t") -> State:
    return State(
        run_id="f.r",
        name=name,
        recipe=Path("r.yaml"),
        recipe_digest="d",
        model="m",
        gateway_url="http://127.0.0.1:8000",
        workers_file=Path("w.yaml"),
        supervisor=ProcessId(pid=1, create_time=2.0),
        started_at=3.0,
    )


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    """The second one is told who the first is and what to do."""
    first, second = RunDir(tmp_path, "t"), RunDir(tmp_path, "t")
    assert second.owner() is None
    with first.lock("up"):
        assert second.owner() == (os.getpid(), "up")
        wanted = rf"t is already running: process {os.getpid()} \(baton up\).*`baton down`"
        with pytest.raises(ConfigError, match=wanted), second.lock("up"):
            pass
        with pytest.raises(ConfigError, match=wanted):
            second.refuse_if_owned()
    assert second.owner() is None
    with second.lock("down"):
        pass


def test_a_killed_owner_leaves_no_lock(tmp_path: Path) -> None:
    """The kernel frees the lock with its holder, however that ended."""
    hold = (
        "import os, signal, pathlib\nfrom baton.local.run_dir import RunDir\n"
        f"with RunDir(pathlib.Path({str(tmp_path)!r}), 't').lock('up'):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", hold], check=False)
    assert RunDir(tmp_path, "t").owner() is None
    with RunDir(tmp_path, "t").lock("up"):
        pass


def test_state_is_read_back_equal_and_garbage_is_none(tmp_path: Path) -> None:
    """A state of another version is no reason to fail: its processes are found by their marks."""
    run = RunDir(tmp_path, "t")
    assert run.read_state() is None
    run.write_state(state())
    assert run.read_state() == state()
    assert [path.name for path in run.folder.iterdir()] == ["state.json"]
    run.write("state.json", '{"run_id": 5}')
    assert run.read_state() is None


def test_runs_are_listed_latest_first(tmp_path: Path) -> None:
    """The deployment a person touched last is the one meant."""
    for name in ("a", "b", "c"):
        RunDir(tmp_path, name).write_state(state(name))
    os.utime(tmp_path / "b" / "state.json", (4e9, 4e9))
    assert all_runs(tmp_path)[0].name == "b"
    assert all_runs(tmp_path / "none") == []


def test_fresh_logs_keep_one_old_run(tmp_path: Path) -> None:
    """The log of the run before is still there to look at."""
    run = RunDir(tmp_path, "t")
    run.fresh_logs()
    run.log("a").write_text("1")
    run.fresh_logs()
    run.log("a").write_text("2")
    run.fresh_logs()
    assert [path.name for path in run.logs.iterdir()] == ["a.log.1"]
    assert (run.logs / "a.log.1").read_text() == "2"


def test_default_root() -> None:
    """XDG's rule: an absolute $XDG_STATE_HOME, else under the home."""
    home = Path("/home/u")
    assert default_root({"XDG_STATE_HOME": "/x"}, home) == Path("/x/baton")
    assert default_root({"XDG_STATE_HOME": "x"}, home) == default_root({}, home) == Path("/home/u/.local/state/baton")
