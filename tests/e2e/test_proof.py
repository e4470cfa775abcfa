"""The proof on real engines: it says PROVEN of a good deployment, and names the fault of each bad one."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from e2e.running import CHECKPOINT, Deployment, answers, start_engine, wait_for

from baton.recipe.recipe import Role

pytestmark = pytest.mark.vllm


def reason_of(result: subprocess.CompletedProcess[str]) -> str:
    verdict = json.loads(result.stdout)
    assert result.returncode == 1, result.stdout + result.stderr
    assert verdict["verdict"] == "NOT PROVEN"
    return str(verdict["reason"])


def attach(prefill: str, decode: str) -> list[str]:
    return ["prove", "--json", "--model", "tiny-r1", "--prefill", prefill, "--decode", decode]


def test_up_has_printed_the_verdict(deployment: Deployment) -> None:
    text = deployment.output.read_text(encoding="utf-8")
    assert "NOT PROVEN" not in text
    assert "PROVEN" in text


def test_a_running_deployment_is_proven(deployment: Deployment) -> None:
    result = deployment.baton("prove", "--json")
    verdict = json.loads(result.stdout)
    assert (result.returncode, verdict["verdict"]) == (0, "PROVEN"), result.stdout
    assert all(check["ok"] for check in verdict["checks"])


def test_servers_that_baton_did_not_start_are_proven_by_url(
    deployment: Deployment, workers: dict[str, dict[str, Any]]
) -> None:
    result = deployment.baton(*attach(workers["prefill-0"]["url"], workers["decode-0"]["url"]))
    assert (result.returncode, json.loads(result.stdout)["verdict"]) == (0, "PROVEN"), result.stdout


def test_a_decode_without_kv_connector_is_not_proven(
    deployment: Deployment, workers: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    with start_engine(Role.DECODE, tmp_path, connector=False) as (process, url):
        wait_for("decode", lambda: answers(url), process, tmp_path / "decode.log", 180)
        reason = reason_of(deployment.baton(*attach(workers["prefill-0"]["url"], url)))
    assert "computed the rest itself" in reason
    assert "--kv-transfer-config" in reason


def test_a_decode_with_other_weights_under_the_same_path_is_not_proven(deployment: Deployment, tmp_path: Path) -> None:
    link = tmp_path / "checkpoint"
    link.symlink_to(CHECKPOINT)
    with start_engine(Role.PREFILL, tmp_path, checkpoint=link) as (prefill, prefill_url):
        wait_for("prefill", lambda: answers(prefill_url), prefill, tmp_path / "prefill.log", 180)
        link.unlink()
        link.symlink_to(other_weights(CHECKPOINT, tmp_path))
        with start_engine(Role.DECODE, tmp_path, checkpoint=link) as (decode, decode_url):
            wait_for("decode", lambda: answers(decode_url), decode, tmp_path / "decode.log", 180)
            reason = reason_of(deployment.baton(*attach(prefill_url, decode_url)))
    # The pair's own canary tells it or, on a machine whose rounding hides it there, the sixteen after it.
    assert "output token" in reason, "it is the answers that gave it away, not the path"


def other_weights(right: Path, tmp_path: Path) -> Path:
    """The checkpoint after one more imaginary training step: same names, same shapes, slightly other numbers."""
    import torch  # noqa: PLC0415 - takes seconds, and only this test needs it
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    wrong = tmp_path / "other-weights"
    shutil.copytree(right, wrong)
    tensors = load_file(wrong / "model.safetensors")
    name = "model.layers.1.self_attn.o_proj.weight"
    noise = torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(0)) * 0.02
    tensors[name] = (tensors[name].float() + noise).to(tensors[name].dtype)
    save_file(tensors, wrong / "model.safetensors", metadata={"format": "pt"})
    return wrong
