"""`baton gateway` on servers it did not start."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from e2e.running import BATON, Deployment, wait_for

pytestmark = pytest.mark.vllm


def test_attaching_a_gateway_by_hand(deployment: Deployment, tmp_path: Path) -> None:
    output = tmp_path / "gateway.txt"
    argv = [*BATON, "gateway", "--workers", deployment.status()["workers_file"], "--port", "0"]
    with output.open("wb") as file:
        process = subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT, env=deployment.env)

    def url() -> str:
        found = re.search(r"listening on (\S+)", output.read_text(encoding="utf-8"))
        return found.group(1) if found else ""

    try:
        wait_for("the gateway's address", lambda: bool(url()), process, output, 30)
        wait_for("ready", lambda: httpx.get(f"{url()}/ready", timeout=30).status_code == 200, process, output, 60)
        answer = httpx.post(f"{url()}/v1/completions", json={"model": "tiny-r1", "prompt": "Hi."}, timeout=60)
        assert answer.headers["x-baton-legs"] == "prefill+decode"
        assert answer.json()["choices"][0]["text"]
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0, output.read_text(encoding="utf-8")


def test_a_workers_file_with_a_fault_names_its_line(deployment: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "workers.yaml"
    file.write_text("model: m\nworkers:\n- {name: p, role: prefil, url: 'http://127.0.0.1:1'}\n", encoding="utf-8")
    result = deployment.baton("gateway", "--workers", str(file))
    assert result.returncode == 2
    assert f"{file}:3:" in result.stderr
    assert "prefill" in result.stderr
