"""One real deployment for all tests that need one: what `make up` starts, on real vLLM."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.running import ROOT, Deployment, marked, wait_for
from hypothesis import settings
from ruamel.yaml import YAML
from support import apiserver
from support.apiserver import ApiServer

# A test finds the same every time; HYPOTHESIS_PROFILE=search looks for what it has not seen yet.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """`make up`, as the README says it, with its state in a folder of its own; ended by Ctrl-C."""
    folder = tmp_path_factory.mktemp("up")
    env = {**os.environ, "XDG_STATE_HOME": str(folder), "COLUMNS": "160"}
    output = folder / "make-up.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["make", "up"], cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    running = Deployment("http://127.0.0.1:8000", env, output)
    try:
        wait_for("make up", lambda: "PROVEN" in output.read_text(encoding="utf-8"), process, output, 420)
        run_id = running.status()["run_id"]
        yield running
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
        assert marked(run_id) == []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            running.baton("down")


@pytest.fixture
def client(deployment: Deployment) -> Iterator[httpx.Client]:
    """Plain HTTP to the gateway."""
    with httpx.Client(base_url=deployment.url, timeout=120) as client:
        yield client


@pytest.fixture(scope="session")
def workers(deployment: Deployment) -> dict[str, dict[str, Any]]:
    """The workers file that `up` wrote, by worker name."""
    text = Path(deployment.status()["workers_file"]).read_text(encoding="utf-8")
    return {worker["name"]: worker for worker in YAML(typ="safe").load(text)["workers"]}


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real Kubernetes API server that knows our custom kinds; skips where there is none to start."""
    with apiserver.running(tmp_path_factory.mktemp("kubernetes")) as server:
        yield server
