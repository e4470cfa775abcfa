"""`baton test`: what it prints, how it exits, and what it refuses before it sends anything."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.observed import ObservedEngine

RECIPE = """
baton: 1
name: t
model: {name: %s, path: model, dtype: float32, max_model_len: 64}
engine: {version: 0.32.0}
hardware: {accelerator: cpu}
kv_transfer: {buffer_device: cpu}
roles: {prefill: {}, decode: {}}
test: {prompt: What is 2 + 2?, max_tokens: 5}
"""


def baton(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "baton", "test", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def beside(engine: ObservedEngine, *args: object) -> subprocess.CompletedProcess[str]:
    await engine.start()
    try:
        return await asyncio.to_thread(baton, "--url", engine.url, *args)
    finally:
        await engine.stop()


async def test_a_right_answer_is_printed_and_exits_0() -> None:
    done = await beside(ObservedEngine())
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, blank, answer = done.stdout.splitlines()
    assert len(lines) == 10
    assert all(line.startswith("holds  ") for line in lines)
    assert blank == ""
    assert len(answer) == 64


async def test_a_recipe_gives_model_and_request(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE % "tiny-r1")
    engine = ObservedEngine()
    done = await beside(engine, tmp_path / "r.yaml", "--set", "test.max_tokens=3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [leg.body["max_tokens"] for leg in engine.legs] == [3, 3]
    assert engine.legs[0].body["messages"] == [{"role": "user", "content": "What is 2 + 2?"}]


async def test_a_model_that_is_not_served_exits_1_and_says_what_is(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE % "other")
    done = await beside(ObservedEngine(), tmp_path / "r.yaml")
    assert done.returncode == 1
    assert done.stdout.startswith("FAILS  models  tiny-r1, deepseek-ai/DeepSeek-R1 (expected other among /v1/models)")


def test_nothing_at_the_url_exits_1_and_says_where_to_look() -> None:
    done = baton("--url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "is a deployment's gateway at http://127.0.0.1:1, and `kubectl port-forward` running?" in done.stdout


async def test_what_a_server_says_cannot_steer_the_terminal() -> None:
    engine = ObservedEngine()
    engine.refuse(500, b"\x1b[2J\x07gone")
    done = await beside(engine)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert "gone" in done.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--url", "https://x.example"], "there is no TLS; forward the Service's port"),
        (["--url", "http://x.example/v1"], "expected http://HOST[:PORT], without /v1"),
        (["--url", "localhost:8000"], "expected http://HOST[:PORT]"),
        (["--url", "http://localhost:1", "--set", "test.max_tokens=3"], "give the recipe too"),
        (["--url", "http://localhost:1", "missing.yaml"], "missing.yaml: cannot read it"),
    ],
)
def test_what_cannot_be_used_exits_2_and_says_what_to_do(args: list[str], said: str) -> None:
    done = baton(*args)
    assert done.returncode == 2
    assert said in done.stderr
