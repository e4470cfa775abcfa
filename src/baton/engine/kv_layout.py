"""How many bytes one KV block is, from the checkpoint's config.json.

    MLA   block_size x layers x (kv_lora_rank + qk_rope_head_dim) x bytes     (one latent vector, shared by all heads)
    GQA   block_size x layers x 2 x num_key_value_heads x head_dim x bytes    (keys and values)

Source: the DeepSeek-V2 report, section 2.1.2, for MLA; measured on vLLM 0.32.0 (36,864 bytes = 16 x 576 x 4 a layer).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from baton.base.errors import ConfigError

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}


def read_config(checkpoint: Path) -> dict[str, Any]:
    """The checkpoint's config.json.

    Raises   ConfigError when it cannot be read
    """
    path = checkpoint / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot read it: {error}; give the folder of the served checkpoint") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(config).__name__}")
    return config


def kv_block_bytes(config: dict[str, Any], block_size: int, dtype: str) -> int:
    """Bytes of one KV block over all layers, `block_size` in tokens.

    Raises   ConfigError when the config lacks a size or the dtype is unknown
    """
    if dtype not in DTYPE_BYTES:
        raise ConfigError(f"KV dtype {dtype!r} is unknown; known: {', '.join(DTYPE_BYTES)}")
    try:
        layers = config["num_hidden_layers"]
        if config.get("kv_lora_rank"):
            per_token = config["kv_lora_rank"] + config["qk_rope_head_dim"]
        else:
            heads = config["num_attention_heads"]
            head_dim = config.get("head_dim") or config["hidden_size"] // heads
            per_token = 2 * config.get("num_key_value_heads", heads) * head_dim
    except KeyError as error:
        raise ConfigError(f"config.json lacks {error}; cannot tell how large its KV is") from error
    return int(block_size * layers * per_token * DTYPE_BYTES[dtype])
