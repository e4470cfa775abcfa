"""Attention kernels for DeepSeek's multi-head latent attention: the GPUs, KV data types and block sizes each takes.

Read from vllm/v1/attention/backends/mla of vLLM 0.12.0 to 0.33.0. Holds for dense attention, not for that of
DeepSeek-V3.2 and V4: V4 never asks vLLM's selector, and takes a backend that is none of its own for none.
"""

from __future__ import annotations

from functools import cache

from baton.catalogue.model import Model, load_model
from baton.check.commands.launch import Launch
from baton.check.text import Span

GENERATIONS = {
    "FLASH_ATTN_MLA": "hopper",
    "FLASHMLA": "hopper",
    "CUTLASS_MLA": "blackwell",
    "FLASHINFER_MLA": "blackwell",
    "TOKENSPEED_MLA": "blackwell",
}
"""the only generation a kernel runs on; TRITON_MLA runs on any"""
BLOCK_SIZES = {
    "FLASH_ATTN_MLA": 16,
    "FLASHMLA": 64,
    "CUTLASS_MLA": 128,
    "FLASHINFER_MLA": 32,
    "TOKENSPEED_MLA": 32,
    "TRITON_MLA": 16,
}
"""tokens of a block: any multiple of it is taken (since vLLM 0.19)"""
_FLAG, _VARIABLE = "--attention-backend", "VLLM_ATTENTION_BACKEND"


def model(launch: Launch) -> Model | None:
    """Return the catalogue's model of a launch; None if it has not got it, or attention is sparse."""
    name = launch.known_model
    return _load(name) if name is not None else None


def backend(launch: Launch) -> tuple[str, Span] | None:
    """Return the attention backend that is asked for and where; None if none is, or it is not known."""
    option = launch.given(_FLAG)
    if option is not None:
        return (option.value.value.upper(), option.value.span) if option.value is not None else None
    for option in launch.all_given("--attention-config"):
        name = launch.config("--attention-config", "backend")
        if isinstance(name, str) and (option.path == ("backend",) or not option.path):
            return name.upper(), (option.words[0] if option.words else option.written).span
    name = launch.variable(_VARIABLE)
    return (name.upper(), launch.env[_VARIABLE].span) if name and launch.reads(_VARIABLE) else None


def is_backend_open(launch: Launch) -> bool:
    """Say whether it is sure that no attention backend is asked for."""
    return launch.lacks(_FLAG, "--attention-config") and (launch.is_env_complete and _VARIABLE not in launch.env)


@cache
def _load(name: str) -> Model:
    return load_model(name)
