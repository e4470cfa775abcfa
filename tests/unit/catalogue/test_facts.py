"""Hardware and models: every figure has a source, and what is derived agrees with what is stated."""

import json
import math
import struct
from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.catalogue.hardware import accelerators, load_accelerator
from baton.catalogue.model import Shape, load_model, models

TINY = Path(__file__).parents[3] / "models" / "tiny-r1" / "checkpoint"


@pytest.mark.parametrize("name", accelerators())
def test_an_accelerator_is_whole_and_sourced(name: str) -> None:
    """Every number is positive and says where it stands; lower precision is never slower."""
    found = load_accelerator(name)
    flops = found.dense_flops_per_s
    figures = [getattr(found, f) for f in found.__struct_fields__ if f not in {"name", "dense_flops_per_s"}]
    assert all(f.value > 0 and f.source for f in [*figures, *flops.values()])
    assert flops["bf16"].value < flops["fp8"].value < flops.get("fp4", flops["fp8"]).value * 1.01
    assert found.nvlink_domain_size.value >= found.gpus_per_node.value


def test_the_accelerators_asked_for_are_there() -> None:
    """An unknown one says which there are."""
    assert accelerators() == ("b200", "gb200", "gb300", "h100-80gb", "h200", "h800")
    assert load_accelerator("h200").hbm_bytes_per_s.value == 4.8e12
    assert load_accelerator("gb200").nvlink_domain_size.value == 72
    with pytest.raises(ConfigError, match="'a100' is not in the catalogue's hardware, which has b200"):
        load_accelerator("a100")


@pytest.mark.parametrize("name", models())
def test_parts_add_up_to_what_the_makers_state(name: str) -> None:
    """Within one percent of the published totals, all and active."""
    found = load_model(name)
    parts = found.parts()
    shape = found.shape
    if total := found.stated.get("num_params"):
        assert parts.total == pytest.approx(total.value, rel=0.01)
    idle = found.num_moe_layers * (shape.n_routed_experts - shape.num_experts_per_tok) * parts.one_expert
    if active := found.stated.get("num_active_params"):
        assert parts.total - idle - parts.embedding == pytest.approx(active.value, rel=0.04)
    assert all(f.source for f in found.stated.values())
    assert found.shape_source
    assert found.weight_dtype_source


def test_kv_bytes_per_token() -> None:
    """576 values a layer over 61 layers; the FP8 layout of FlashMLA is 656 bytes a layer."""
    r1 = load_model("deepseek-r1")
    assert [r1.kv_bytes_per_token(d) for d in ("bfloat16", "fp8", "fp8_ds_mla")] == [70272, 35136, 61 * 656]
    with pytest.raises(ConfigError, match="KV cache dtype 'int4': use one of float32, bfloat16"):
        r1.kv_bytes_per_token("int4")
    assert load_model("qwen3-32b").kv_bytes_per_token("bfloat16") == 64 * 2 * 8 * 128 * 2
    with pytest.raises(ConfigError, match=r"use one of float32, bfloat16, float16, fp8$"):
        load_model("qwen3-32b").kv_bytes_per_token("fp8_ds_mla")


def test_tiny_r1_is_its_checkpoint() -> None:
    """Its shape is that of config.json, its parameters those of the weights."""
    found = load_model("tiny-r1")
    config = json.loads((TINY / "config.json").read_text(encoding="utf-8"))
    no_mla = ("num_key_value_heads", "head_dim")
    given = {k: config[k] for k in Shape.__struct_fields__ if k in config and k not in no_mla}
    assert found.shape == Shape(**given), "keys and values have no heads of their own in MLA"
    assert found.weight_dtype == config["torch_dtype"]
    data = (TINY / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = json.loads(data[8 : 8 + length])
    assert found.parts().total == sum(math.prod(t["shape"]) for n, t in tensors.items() if n != "__metadata__")
