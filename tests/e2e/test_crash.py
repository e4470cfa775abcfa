"""What a person and a client see when an engine dies under them."""

from __future__ import annotations

import json
import os
import signal

import httpx
import pytest
from e2e.running import Deployment, eventually

pytestmark = pytest.mark.vllm


def test_a_killed_decode_fails_its_stream_is_restarted_and_serves_again(deployment: Deployment) -> None:
    crashes = deployment.child("decode-0")["num_crashes"]
    body = {"model": "tiny-r1", "prompt": "Hello ", "max_tokens": 1500, "stream": True, "ignore_eos": True}
    with (
        httpx.Client(base_url=deployment.url, timeout=120) as client,
        client.stream("POST", "/v1/completions", json=body) as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines).startswith("data: {")
        os.killpg(deployment.child("decode-0")["process"]["pid"], signal.SIGKILL)
        rest = [line for line in lines if line]
    assert rest[-1] != "data: [DONE]", "a broken stream never looks complete"
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == 502

    def ready() -> int:
        return httpx.get(f"{deployment.url}/ready", timeout=30).status_code

    eventually(lambda: ready() == 503, "the gateway notices", 10)
    refused = httpx.post(f"{deployment.url}/v1/completions", json={"model": "tiny-r1", "prompt": "Hi."}, timeout=60)
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert "waiting for decode-0" in refused.json()["error"]["message"]

    eventually(lambda: ready() == 200, "decode is restarted and verified anew", 180)
    child = deployment.child("decode-0")
    assert child["num_crashes"] == crashes + 1
    assert child["last_crash"]["last_lines"]
    again = httpx.post(f"{deployment.url}/v1/completions", json={"model": "tiny-r1", "prompt": "Hi."}, timeout=60)
    assert again.status_code == 200


def test_a_second_up_names_the_first(deployment: Deployment) -> None:
    second = deployment.baton("up")
    assert second.returncode == 2
    assert "baton down" in second.stderr
