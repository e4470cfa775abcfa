"""This machine's GPUs, without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.local.gpus import Gpu, fit, of_deployment, parse, visible
from baton.recipe.deployment import Deployment, resolve
from baton.recipe.document import parse as parse_recipe
from baton.recipe.recipe import Recipe

LISTING = (
    "0, GPU-aa11, NVIDIA H200, 143771\n1, GPU-aa22, NVIDIA H200, 143771\n2, GPU-bb33, NVIDIA H100 80GB HBM3, 81559\n"
)


def deployment(accelerator: str, gpus: int = 1) -> Deployment:
    pool = f"{{gpus_per_node: {gpus}, tp_size: {gpus}}}" if gpus else "{}"
    text = (
        "{baton: 1, name: t, model: {name: m, path: /m, dtype: bfloat16, max_model_len: 64}, "
        f"engine: {{version: 0.32.0}}, hardware: {{accelerator: {accelerator}}}, kv_transfer: {{buffer_device: cpu}}, "
        f"roles: {{prefill: {pool}, decode: {pool}}}}}"
    )
    return resolve(parse_recipe(text, Recipe, source="t.yaml"), Path("/"))


def test_a_listing() -> None:
    """Memory in MiB; a driver that does not say it is believed to have enough."""
    assert parse(LISTING)[2] == Gpu("2", "GPU-bb33", "NVIDIA H100 80GB HBM3", 81559 << 20)
    assert parse("0, GPU-1, NVIDIA GB10, [N/A]\n")[0].memory_bytes is None
    with pytest.raises(ConfigError, match=r"nvidia-smi answered 'NVIDIA-SMI has failed'"):
        parse("NVIDIA-SMI has failed\n")


@pytest.mark.parametrize(
    ("chosen", "left"),
    [(None, "012"), ("", ""), ("-1", ""), ("2,0", "20"), ("1,-1,0", "1"), ("GPU-bb, 0", "20")],
)
def test_the_environment_chooses(chosen: str | None, left: str) -> None:
    """As CUDA reads it: in its order, up to -1, ids by their beginning."""
    assert "".join(gpu.index for gpu in visible(parse(LISTING), chosen)) == left


@pytest.mark.parametrize("chosen", ["3", "0,0", "GPU-aa", "MIG-1", "GPU-"])
def test_what_is_not_one_gpu_is_refused(chosen: str) -> None:
    """CUDA would leave out the rest without a word."""
    with pytest.raises(ConfigError, match=r"CUDA_VISIBLE_DEVICES=.* is not one GPU .*it has: 0, 1, 2"):
        visible(parse(LISTING), chosen)


def test_the_recipes_own_gpus_fit_silently() -> None:
    """Nothing to say of the same kind; a CPU recipe asks for none."""
    assert fit(deployment("h200"), parse(LISTING)) == ""
    assert fit(deployment("h100-80gb"), parse(LISTING.replace("H200", "H100 80GB HBM3"))) == ""
    assert fit(deployment("cpu", 0), ()) == ""


def test_other_gpus_with_room_are_told() -> None:
    """An H200 holds what an H100 does; only those that are taken count."""
    assert fit(deployment("h100-80gb"), parse(LISTING)) == (
        "the recipe is written for h100-80gb, this machine has NVIDIA H200"
    )
    assert "GH200" in fit(deployment("h200"), parse(LISTING.replace("H200", "GH200 480GB")))


def test_less_memory_is_refused() -> None:
    """The recipe's sizes were chosen for what the catalogue says."""
    with pytest.raises(ConfigError, match=r"for h200 with 151 GB; GPU 2 .*H100 80GB HBM3, has 86 GB.*CUDA_VISIBLE_DEV"):
        fit(deployment("h200"), visible(parse(LISTING), "0,2"))


def test_no_gpus_is_refused_with_the_nearest() -> None:
    """What runs here, and where the recipe would."""
    with pytest.raises(ConfigError, match=r"needs 2 GPUs \(h200\).*has none.*recipes/tiny-local.yaml.*baton render"):
        fit(deployment("h200"), ())
    with pytest.raises(ConfigError, match=r"needs 4 GPUs on one machine"):
        fit(deployment("h200", 2), parse(LISTING))


def fake_smi(folder: Path, body: str) -> dict[str, str]:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_nvidia_smi_is_asked_once_needed(tmp_path: Path) -> None:
    """With the environment's choice; never for a CPU recipe; a machine without it has no GPUs."""
    env = fake_smi(tmp_path, f"[ $# -eq 2 ] && printf '%s' '{LISTING}'")
    assert [gpu.index for gpu in of_deployment(deployment("h200"), {**env, "CUDA_VISIBLE_DEVICES": "1"})] == ["1"]
    assert of_deployment(deployment("cpu", 0), fake_smi(tmp_path, "exit 9")) == ()
    assert of_deployment(deployment("h200"), {"PATH": str(tmp_path / "none")}) == ()


def test_a_broken_driver_is_told_in_its_own_words(tmp_path: Path) -> None:
    """Not as a machine without GPUs."""
    env = fake_smi(tmp_path, "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    with pytest.raises(ConfigError, match=r"exit code 18: Failed to initialize NVML.*repair the driver"):
        of_deployment(deployment("h200"), env)
