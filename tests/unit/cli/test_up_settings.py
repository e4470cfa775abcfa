"""`baton up --set`, and recipes for GPUs on a machine that has none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Baton

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="marks are read from /proc")


def test_settings_reach_the_detached_supervisor(baton: Baton) -> None:
    """It reads the recipe again, with what was set; also a value that looks like an option."""
    options = ["--set", "model.name=--other", "--set", "gateway.request_timeout_s=7"]
    code, _, err = baton("up", str(baton.recipe), "--detach", *options)
    assert (code, err) == (0, "")
    state = baton.run_dir.read_state()
    assert state is not None
    assert state.model == "--other"
    assert "--served-model-name --other" in (baton.run_dir.logs / "prefill-0.log").read_text()
    assert "--request-timeout-s 7.0" in (baton.run_dir.logs / "gateway.log").read_text()
    baton("down")


def test_a_gpu_recipe_without_gpus_is_refused_before_anything_is_fetched(baton: Baton) -> None:
    """Exit 2, with the nearest that runs here."""
    baton.env["CUDA_VISIBLE_DEVICES"] = "-1"
    gpus = [f"--set=roles.{role}.gpus_per_node=1" for role in ("prefill", "decode")]
    code, out, err = baton("up", str(baton.recipe), "--install", "--set=hardware.accelerator=h200", *gpus)
    assert (code, out) == (2, "")
    assert "t needs 2 GPUs (h200), and this machine has none" in err
    assert "recipes/tiny-local.yaml" in err
    assert not baton.run_dir.logs.exists()
