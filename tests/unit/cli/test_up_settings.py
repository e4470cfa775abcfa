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


def test_up_starts_its_gateway_with_the_recipes_keys_and_limits(baton: Baton) -> None:
    """The file is named from the recipe's folder; the proof, which has no key, goes past that gateway."""
    keys = baton.recipe.parent / "keys.yaml"
    keys.write_text(f'keys: [{{name: a, sha256: "{"0" * 64}"}}]\n')
    options = ["--set=gateway.api_keys={file: keys.yaml}", "--set=gateway.max_queued=7", "--set=gateway.processes=2"]
    code, out, err = baton("up", str(baton.recipe), "--detach", *options)
    assert (code, err) == (0, "")
    assert f"--api-keys {keys} --max-queued 7 --processes 2" in (baton.run_dir.logs / "gateway.log").read_text()
    assert '-H "Authorization: Bearer $KEY"' in out
    assert "through a gateway of its own" in out
    assert "PROVEN" in out
    baton("down")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{secret: s}", "set gateway.api_keys.file too"),
        ("{file: none.yaml}", "none.yaml: cannot read it"),
        ("{file: t.yaml}", "t.yaml:1:1: keys: missing"),
    ],
)
def test_keys_that_cannot_be_had_here_are_refused_before_anything_starts(baton: Baton, source: str, said: str) -> None:
    code, out, err = baton("up", str(baton.recipe), f"--set=gateway.api_keys={source}")
    assert (code, out) == (2, "")
    assert said in err
    assert not baton.run_dir.logs.exists()
