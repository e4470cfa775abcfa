"""The rotary op of the CPU against the rotation written out in float64."""

# ruff: noqa: PLC0415 - torch and vLLM take seconds to import and are not there everywhere

from typing import TYPE_CHECKING, Any

import pytest

from baton.engine.cpu_plugin import apply_repairs

if TYPE_CHECKING:
    from torch import Tensor

pytestmark = pytest.mark.usefixtures("stock_vllm")

TOKENS, HEADS, NOPE, ROPE = 37, 4, 128, 64
BASE = 10000.0


@pytest.fixture(params=[True, False], ids=["neox", "gptj"])
def rotary(request: pytest.FixtureRequest) -> Any:
    import torch
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    with set_current_vllm_config(VllmConfig()):
        return RotaryEmbedding(ROPE, ROPE, 2048, BASE, request.param, torch.float32)


def reference(x: "Tensor", positions: "Tensor", neox: bool) -> "Tensor":
    """Rotate each pair (a, b) of x [T, H, D] by position * BASE ** (-2 i / D) as one complex number."""
    import torch

    half = x.shape[-1] // 2
    angle = positions.double().unsqueeze(1) * BASE ** (-torch.arange(half).double() / half)
    pairs = x.double().unflatten(-1, (2, half) if neox else (half, 2)).movedim(-2 if neox else -1, -1)
    turned = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angle), angle).unsqueeze(1)
    parts = torch.view_as_real(turned)
    return (parts.movedim(-1, -2) if neox else parts).flatten(-2)


def inputs() -> "tuple[Tensor, Tensor, Tensor]":
    """Return positions, a query that is a slice as in MLA (not contiguous), and a key."""
    import torch

    generator = torch.Generator().manual_seed(0)
    positions = torch.randint(0, 2048, (TOKENS,), generator=generator)
    query = torch.randn(TOKENS, HEADS, NOPE + ROPE, generator=generator)[..., NOPE:]
    return positions, query, torch.randn(TOKENS, 1, ROPE, generator=generator)


def error(rotary: Any) -> float:
    positions, query, key = inputs()
    expected = reference(query, positions, rotary.is_neox_style), reference(key, positions, rotary.is_neox_style)
    rotated = rotary.forward_cpu(positions, query.clone(), key.clone())
    return max((got.double() - want).abs().max().item() for got, want in zip(rotated, expected, strict=True))


def test_stock_rotates_mla_queries_wrongly(rotary: Any) -> None:
    """When this fails, vLLM has repaired its op and the repair can go."""
    assert error(rotary) > 1


def test_repaired_rotates_as_the_reference(rotary: Any) -> None:
    apply_repairs(["rotary"])
    assert error(rotary) < 1e-3


def test_repaired_equals_the_native_path_bit_for_bit(rotary: Any) -> None:
    apply_repairs(["rotary"])
    positions, query, key = inputs()
    native = rotary.forward_native(positions, query.clone(), key.clone())
    for got, want in zip(rotary.forward_cpu(positions, query.clone(), key.clone()), native, strict=True):
        assert got.equal(want)


def test_repaired_rotates_in_place_as_stock_promises(rotary: Any) -> None:
    apply_repairs(["rotary"])
    positions, query, key = inputs()
    flat_query, flat_key = query.reshape(TOKENS, -1).clone(), key.reshape(TOKENS, -1).clone()
    rotated_query, rotated_key = rotary.forward_cpu(positions, query, key)
    rotary.forward_cpu(positions, flat_query, flat_key)
    assert rotated_query is query
    assert rotated_key is key
    assert query.reshape(TOKENS, -1).equal(flat_query)
    assert key.reshape(TOKENS, -1).equal(flat_key)


def test_repaired_takes_a_query_without_a_key(rotary: Any) -> None:
    apply_repairs(["rotary"])
    positions, query, _ = inputs()
    expected = reference(query, positions, rotary.is_neox_style)
    rotated, no_key = rotary.forward_cpu(positions, query)
    assert no_key is None
    assert (rotated.double() - expected).abs().max() < 1e-3
