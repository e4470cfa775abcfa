"""Bytes of a KV block, against figures from elsewhere."""

import json
from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.engine.kv_layout import kv_block_bytes, read_config

MLA = {"kv_lora_rank": 512, "qk_rope_head_dim": 64}
DEEPSEEK_R1 = {**MLA, "num_hidden_layers": 61, "num_attention_heads": 128, "hidden_size": 7168}
LLAMA_3_8B = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096}


def test_a_tiny_r1_layer_takes_what_vllm_was_measured_to_move() -> None:
    assert kv_block_bytes({**MLA, "num_hidden_layers": 1}, 16, "float32") == 36_864
    assert kv_block_bytes({**MLA, "num_hidden_layers": 4}, 16, "float32") * 4 * 15 == 8_847_360


@pytest.mark.parametrize("block_size", [1, 16, 64, 128])
def test_deepseek_r1_in_bf16_takes_61_layers_of_576_numbers_of_2_bytes(block_size: int) -> None:
    assert kv_block_bytes(DEEPSEEK_R1, block_size, "bfloat16") == 61 * 576 * 2 * block_size
    assert kv_block_bytes(DEEPSEEK_R1, block_size, "bfloat16") == 70_272 * block_size


@pytest.mark.parametrize("dtype", ["fp8", "fp8_e4m3", "fp8_e5m2"])
def test_fp8_takes_half(dtype: str) -> None:
    assert kv_block_bytes(DEEPSEEK_R1, 64, dtype) == kv_block_bytes(DEEPSEEK_R1, 64, "bfloat16") // 2


def test_grouped_query_attention_takes_keys_and_values_of_its_kv_heads() -> None:
    assert kv_block_bytes(LLAMA_3_8B, 16, "bfloat16") == 16 * 32 * 2 * 8 * 128 * 2
    assert kv_block_bytes({**LLAMA_3_8B, "head_dim": 64}, 16, "bfloat16") == 16 * 32 * 2 * 8 * 64 * 2


def test_without_groups_every_head_has_keys_and_values() -> None:
    config = {key: value for key, value in LLAMA_3_8B.items() if key != "num_key_value_heads"}
    assert kv_block_bytes(config, 16, "float16") == 16 * 32 * 2 * 4096 * 2


@pytest.mark.parametrize("missing", ["num_hidden_layers", "qk_rope_head_dim"])
def test_a_config_that_lacks_a_size_is_an_error_that_names_it(missing: str) -> None:
    with pytest.raises(ConfigError, match=missing):
        kv_block_bytes({key: value for key, value in DEEPSEEK_R1.items() if key != missing}, 16, "bfloat16")


def test_an_unknown_number_format_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"'int3'.*float32, bfloat16"):
        kv_block_bytes(DEEPSEEK_R1, 16, "int3")


@pytest.mark.parametrize("text", [None, "", "{", "[]", "\udcff"])
def test_a_config_that_cannot_be_read_is_an_error_that_names_the_file(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_config(tmp_path)


def test_a_config_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DEEPSEEK_R1))
    assert read_config(tmp_path) == DEEPSEEK_R1
