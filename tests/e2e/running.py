"""What end-to-end tests share: a running deployment, waiting for it, and engines beside it with faults of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from baton.engine.command import Place, serve_command
from baton.recipe.deployment import resolve
from baton.recipe.recipe import Role, load_recipe

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "models/tiny-r1/checkpoint"
BATON = (sys.executable, "-m", "baton")


@dataclass(frozen=True, slots=True)
class Deployment:
    """A running deployment: its address, its environment, and what `make up` has printed."""

    url: str
    env: Mapping[str, str]
    output: Path

    def baton(self, *args: str, timeout_s: float = 300.0) -> subprocess.CompletedProcess[str]:
        """Run a verb beside it."""
        return subprocess.run(
            [*BATON, *args], env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
        )

    def status(self) -> dict[str, Any]:
        """`baton status --json`."""
        answer: dict[str, Any] = json.loads(self.baton("status", "--json").stdout)
        return answer

    def child(self, name: str) -> dict[str, Any]:
        """One process of the deployment."""
        return next(child for child in self.status()["children"] if child["name"] == name)


def wait_for(
    what: str, ready: Callable[[], bool], process: subprocess.Popen[bytes], output: Path, limit_s: float
) -> None:
    """Wait for a condition that a process brings about; fail at once, with its output, when it ends instead."""
    deadline_s = time.monotonic() + limit_s
    while not ready():
        ended, late = process.poll() is not None, time.monotonic() > deadline_s
        if ended or late:
            why = f"the process ended with {process.returncode}" if ended else f"not within {limit_s:.0f} s"
            pytest.fail(f"{what}: {why}\n{output.read_text(encoding='utf-8')[-4000:]}")
        time.sleep(0.2)


def marked(run_id: str) -> list[psutil.Process]:
    """Every living process of a run."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("BATON_RUN_ID") == run_id:
                found.append(process)
        except psutil.Error:
            continue
    return found


def eventually(holds: Callable[[], bool], what: str, limit_s: float) -> None:
    """Fail unless a condition comes to hold within `limit_s`."""
    deadline_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.2)


def answers(url: str) -> bool:
    """Whether a server is healthy."""
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@contextlib.contextmanager
def start_engine(
    role: Role, folder: Path, *, connector: bool = True, checkpoint: Path | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """One engine of tiny-local, as `baton up` would start it, less what the test takes away; gone after the block."""
    recipe = ROOT / "recipes/tiny-local.yaml"
    deployment = resolve(load_recipe(recipe), recipe.parent)
    if checkpoint is not None:
        deployment = replace(deployment, model=deployment.model.model_copy(update={"path": checkpoint}))
    port, nixl_port = free_port(), free_port()
    vllm = str(Path(sys.executable).with_name("vllm"))
    place = Place(host="127.0.0.1", http_port=port, nixl_port=nixl_port, executable=(vllm,))
    command = serve_command(deployment, deployment.of_role(role)[0], place)
    argv = list(command.argv)
    if not connector:
        at = argv.index("--kv-transfer-config")
        del argv[at : at + 2]
    scratch = tempfile.mkdtemp(prefix="baton-")  # vLLM's sockets: a killed engine leaves them behind
    threads = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    env = {**os.environ, **command.env, **threads, "TMPDIR": scratch}
    with (folder / f"{role}.log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(scratch, ignore_errors=True)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
