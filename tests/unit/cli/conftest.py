"""`baton` as a person runs it, with a fake engine and a fake gateway."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from baton.local import processes
from baton.local.run_dir import RunDir
from baton.local.state import State

FAKES = Path(__file__).parents[1] / "local" / "fakes"


class Baton:
    """The console script in a process of its own, on one state folder."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "state"
        self.run_dir = RunDir(self.root, "t")
        self.recipe = folder / "t.yaml"
        self.model = folder / "model"
        self.temp = folder / "tmp"
        self.temp.mkdir()
        self.model.mkdir()
        (self.model / "config.json").write_text("{}")
        self.recipe.write_text(
            "baton: 1\nname: t\nmodel: {name: tiny, aliases: [deepseek-ai/DeepSeek-R1], path: model, dtype: float32, "
            "max_model_len: 64}\nengine: {version: 0.32.0}\nhardware: {accelerator: cpu}\n"
            "kv_transfer: {buffer_device: cpu}\nroles: {prefill: {}, decode: {}}\ngateway: {port: 0}\n"
        )
        self.started: list[subprocess.Popen[str]] = []
        python = folder / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKES / "fake_baton.py"} "$@"\n')
        python.chmod(0o755)
        self.env = {
            **os.environ,
            "FAKE_PYTHON": str(python),
            "TMPDIR": str(self.temp),
            "COLUMNS": "200",
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start a verb."""
        process = subprocess.Popen(
            [self.env["FAKE_PYTHON"], *args, "--state-dir", str(self.root)],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def __call__(self, *args: str) -> tuple[int, str, str]:
        """Run a verb to its end: exit code, output, errors."""
        process = self.start(*args)
        out, err = process.communicate(timeout=25)
        return process.returncode, out, err

    def up(self, *args: str) -> subprocess.Popen[str]:
        """Start `up` and wait until it is ready."""
        process = self.start("up", str(self.recipe), *args)
        self.until_ready(process)
        return process

    def until_ready(self, process: subprocess.Popen[str]) -> State:
        """Wait until `process` supervises a ready deployment."""
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            assert process.poll() is None, process.communicate()
            state = self.run_dir.read_state()
            if state is not None and state.supervisor.pid == process.pid and state.ready:
                return state
            time.sleep(0.02)
        raise AssertionError(f"not ready in time: {self.run_dir.read_state()}")

    def living(self) -> list[psutil.Process]:
        """Everything that runs of the deployment."""
        return processes.of_folder(self.run_dir.folder)


@pytest.fixture
def baton(tmp_path: Path) -> Iterator[Baton]:
    """A fresh state folder; whatever the test leaves is killed."""
    baton = Baton(tmp_path)
    yield baton
    owner = baton.run_dir.owner()
    if owner is not None:
        os.kill(owner[0], signal.SIGKILL)
    for process in baton.started:
        if process.poll() is None:
            process.kill()
        process.communicate()
    for each in baton.living():
        each.kill()
