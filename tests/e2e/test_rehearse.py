"""Rehearsals with real vLLM on the CPU: one rank of tiny-r1, and recipes that cannot be run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm
RECIPE = Path(__file__).parents[2] / "recipes" / "tiny-local-ep.yaml"


def rehearse(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "baton", "rehearse", str(RECIPE), *map(str, args)]
    env = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=300)


def test_a_decode_rank_is_measured_and_written(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    done = rehearse(
        "--role", "decode", "--batch", "2", "--batch", "4", "--length", "64", "--steps", "3", "--write", path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "one decode rank of EP2: 8 experts" in done.stdout
    found = json.loads(path.read_text())
    assert [(point["batch"], point["num_steps"]) for point in found["points"]] == [(2, 3), (4, 3)]
    assert all(point["step_s"] > 0 for point in found["points"])
    assert (found["engine_version"], found["experts_held"], found["attention_backend"]) == ("0.32.0", 8, "CPU_MLA")


def test_a_prefill_rank_with_skewed_routing_is_measured_and_what_does_not_fit_is_said() -> None:
    done = rehearse(
        "--role", "prefill", "--length", "64", "--chunk", "128", "--chunk", "100000", "--steps", "2", "--skew", "1"
    )
    assert done.returncode == 1, "one point was not measured"
    assert "prefill,   128 tokens of prompts of    64:" in done.stdout
    assert "does not fit: max-num-batched-tokens" in done.stdout


def test_a_flag_that_the_engine_has_not_got_is_named() -> None:
    done = rehearse("--role", "decode", "--set", "roles.decode.flags={swap-space: 4}")
    assert done.returncode == 1
    assert "baton rehearse: --swap-space: this engine has no such flag" in done.stderr


def test_too_little_memory_for_kv_names_the_setting() -> None:
    done = rehearse("--role", "decode", "--set", "engine.flags.kv-cache-memory-bytes=1000000")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "kv-cache-memory-bytes" in done.stderr
