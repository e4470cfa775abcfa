"""Two data-parallel ranks a role, the experts split between them: every pair hands off, and the tokens are the same."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from e2e.running import BATON, ROOT

pytestmark = pytest.mark.vllm


def test_dp2_with_expert_parallelism_is_proven_and_ends_clean(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}

    def baton(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BATON, *args], env=env, cwd=ROOT, capture_output=True, text=True, timeout=420, check=False
        )

    up = baton("up", "recipes/tiny-local-ep.yaml", "--detach", "--port", "0")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        verdict = json.loads(baton("prove", "--json").stdout)
        assert verdict["verdict"] == "PROVEN", verdict
        assert verdict["checks"][0]["found"] == "4 of 4"
    finally:
        down = baton("down")
    assert down.returncode == 0
    assert baton("status").returncode == 3
