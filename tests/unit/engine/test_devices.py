"""Which GPUs each engine takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.engine.devices import device_env
from baton.recipe.deployment import Deployment, resolve
from baton.recipe.document import parse
from baton.recipe.recipe import Recipe


def deployment(prefill: str = "{gpus_per_node: 1}", decode: str = "{gpus_per_node: 1}") -> Deployment:
    text = f"""
        baton: 1
        name: t
        model: {{name: m, path: /m, dtype: bfloat16, max_model_len: 64}}
        engine: {{version: 0.32.0}}
        hardware: {{accelerator: h200}}
        kv_transfer: {{buffer_device: cuda}}
        roles: {{prefill: {prefill}, decode: {decode}}}
    """
    return resolve(parse(text, Recipe, source="t.yaml"), Path("/recipes"))


def test_engines_share_no_gpu() -> None:
    """In order, prefill first, from those the machine has, whatever their numbers."""
    given = deployment("{gpus_per_node: 1, replicas: 2}", "{gpus_per_node: 2, dp_size: 2, expert_parallel: true}")
    found = device_env(given, ["0", "3", "5", "6", "7"])
    chosen = {name: env["CUDA_VISIBLE_DEVICES"] for name, env in found.items()}
    assert chosen == {"prefill-0": "0", "prefill-1": "3", "decode-0": "5,6"}


def test_numbers_are_nvidia_smis() -> None:
    """CUDA counts the fastest GPU first unless it is told otherwise."""
    assert device_env(deployment(), ["0", "1"])["decode-0"] == {
        "CUDA_VISIBLE_DEVICES": "1",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_a_cpu_engine_takes_none() -> None:
    """Nothing is said of GPUs, so that a CPU engine may see what it likes."""
    text = (
        "{baton: 1, name: t, model: {name: m, path: /m, dtype: float32, max_model_len: 64}, engine: {version: 0.32.0}, "
        "hardware: {accelerator: cpu}, kv_transfer: {buffer_device: cpu}, roles: {prefill: {}, decode: {}}}"
    )
    assert device_env(resolve(parse(text, Recipe, source="t.yaml"), Path("/")), []) == {}


@pytest.mark.parametrize(("available", "told"), [([], "there are none"), (["4"], r"there is 1 \(4\)")])
def test_too_few_are_refused_with_the_sum(available: list[str], told: str) -> None:
    """Both roles, the fields to change, and what is there."""
    given = deployment("{gpus_per_node: 2, tp_size: 2, replicas: 2}")
    told = (
        r"t needs 5 GPUs on one machine: roles\.prefill\.replicas 2 x gpus_per_node 2 = 4, "
        rf"roles\.decode\.replicas 1 x gpus_per_node 1 = 1; {told}\. Lower replicas or gpus_per_node"
    )
    with pytest.raises(ConfigError, match=told):
        device_env(given, available)


def test_several_nodes_are_for_kubernetes() -> None:
    """However many GPUs there are."""
    given = deployment(decode="{nodes: 2, gpus_per_node: 1, dp_size: 2, expert_parallel: true}")
    with pytest.raises(ConfigError, match=r"roles\.decode\.nodes: .* spans 2 nodes.*--target kubernetes"):
        device_env(given, [str(number) for number in range(16)])


def test_a_recipe_does_not_choose_gpus() -> None:
    """Two engines would get the same ones."""
    given = deployment('{gpus_per_node: 1, env: {CUDA_VISIBLE_DEVICES: "3"}}')
    with pytest.raises(ConfigError, match=r"CUDA_VISIBLE_DEVICES of role prefill.*: CUDA_VISIBLE_DEVICES=3$"):
        device_env(given, ["0", "1", "2", "3"])
