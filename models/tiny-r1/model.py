# ruff: noqa: D102 - what forward() does is its class's docstring
"""DeepSeek-V3's maths in plain PyTorch, for training at a size where every expert can be computed for every token.

Shapes: B rows, T positions, H heads, D hidden, E routed experts, F an expert's width, L layers. Parameter names are the
checkpoint's, except that the routed experts of a layer lie side by side in three matrices (`experts.gate_proj` [E*F, D]
and so on): a mixture whose unchosen experts weigh 0 is one wide gated MLP, exact and without any dispatch.
`checkpoint_tensors` splits them into DeepSeek's per-expert names.

Knows nothing of training, caches or tokens; a paged, cached forward is vLLM's work.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The fields of config.json that shape the model.

    kv_lora_rank + qk_rope_head_dim is 576, as in DeepSeek-R1: vLLM's CPU kernel takes nothing else.
    """

    vocab_size: int = 1024
    hidden_size: int = 192
    intermediate_size: int = 384
    moe_intermediate_size: int = 64
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    n_shared_experts: int = 1
    n_routed_experts: int = 16
    num_experts_per_tok: int = 4
    n_group: int = 4
    topk_group: int = 2
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 2.5
    first_k_dense_replace: int = 1
    moe_layer_freq: int = 1
    q_lora_rank: int = 96
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 64
    qk_rope_head_dim: int = 64
    v_head_dim: int = 64
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 4096


class MLA(nn.Module):
    """Multi-head latent attention, the naive path: keys and values are expanded from the latent."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        qk_head_dim = c.qk_nope_head_dim + c.qk_rope_head_dim
        self.q_a_proj = nn.Linear(c.hidden_size, c.q_lora_rank, bias=False)
        self.q_a_layernorm = nn.RMSNorm(c.q_lora_rank, eps=c.rms_norm_eps)
        self.q_b_proj = nn.Linear(c.q_lora_rank, c.num_attention_heads * qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(c.hidden_size, c.kv_lora_rank + c.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = nn.RMSNorm(c.kv_lora_rank, eps=c.rms_norm_eps)
        self.kv_b_proj = nn.Linear(
            c.kv_lora_rank, c.num_attention_heads * (c.qk_nope_head_dim + c.v_head_dim), bias=False
        )
        self.o_proj = nn.Linear(c.num_attention_heads * c.v_head_dim, c.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        c = self.c
        B, T, _ = x_BTD.shape
        H = c.num_attention_heads
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_BTD))).view(B, T, H, -1).transpose(1, 2)
        q_nope, q_rope = q.split([c.qk_nope_head_dim, c.qk_rope_head_dim], dim=-1)
        latent, k_rope = self.kv_a_proj_with_mqa(x_BTD).split([c.kv_lora_rank, c.qk_rope_head_dim], dim=-1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent)).view(B, T, H, -1).transpose(1, 2)
        k_nope, v = kv.split([c.qk_nope_head_dim, c.v_head_dim], dim=-1)
        q_rope, k_rope = rotate(q_rope, *rope), rotate(k_rope[:, None], *rope)
        q = torch.cat([q_nope, q_rope.to(q_nope.dtype)], dim=-1)
        k = torch.cat([k_nope, k_rope.to(k_nope.dtype).expand(B, H, T, -1)], dim=-1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    """SwiGLU; the dense layers and the shared expert."""

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, width, bias=False)
        self.up_proj = nn.Linear(hidden_size, width, bias=False)
        self.down_proj = nn.Linear(width, hidden_size, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class Gate(nn.Module):
    """noaux_tc routing: sigmoid scores, a bias that only steers the choice, best groups, then best experts in them."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.weight = nn.Parameter(torch.empty(c.n_routed_experts, c.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(c.n_routed_experts))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Weight of every expert for every token, [B, T, E] fp32: 0 for those not chosen."""
        c = self.c
        with torch.autocast(x_BTD.device.type, enabled=False):
            scores = F.linear(x_BTD.float(), self.weight.float()).sigmoid()
        choice = (scores.detach() + self.e_score_correction_bias).unflatten(-1, (c.n_group, -1))
        group_scores = choice.topk(2, dim=-1).values.sum(dim=-1)
        groups = torch.zeros_like(group_scores).scatter(-1, group_scores.topk(c.topk_group, dim=-1).indices, 1.0)
        choice = choice.masked_fill(groups[..., None] == 0, float("-inf")).flatten(-2)
        chosen = torch.zeros_like(scores).scatter(-1, choice.topk(c.num_experts_per_tok, dim=-1).indices, 1.0)
        weights = scores * chosen
        return weights / weights.sum(dim=-1, keepdim=True) * c.routed_scaling_factor


class Experts(nn.Module):
    """All routed experts of a layer as one wide SwiGLU whose hidden units are scaled by their expert's weight."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        width = c.n_routed_experts * c.moe_intermediate_size
        self.gate_proj = nn.Linear(c.hidden_size, width, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, width, bias=False)
        self.down_proj = nn.Linear(width, c.hidden_size, bias=False)

    def forward(self, x_BTD: Tensor, weights_BTE: Tensor) -> Tensor:
        hidden = F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD)
        hidden = hidden.unflatten(-1, (weights_BTE.shape[-1], -1)) * weights_BTE[..., None].to(hidden.dtype)
        return self.down_proj(hidden.flatten(-2))


class MoE(nn.Module):
    """Routed experts plus the shared one; also returns which experts each token chose, [B, T, E]."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.gate = Gate(c)
        self.experts = Experts(c)
        self.shared_experts = MLP(c.hidden_size, c.moe_intermediate_size * c.n_shared_experts)

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.gate(x_BTD)
        return self.experts(x_BTD, weights) + self.shared_experts(x_BTD), weights > 0


class Block(nn.Module):
    """Attention, then a dense MLP or a mixture of experts, each on a normalized residual stream."""

    def __init__(self, c: Config, layer: int) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)
        self.self_attn = MLA(c)
        self.post_attention_layernorm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)
        self.mlp = MLP(c.hidden_size, c.intermediate_size) if layer < c.first_k_dense_replace else MoE(c)

    def forward(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rope)
        normed = self.post_attention_layernorm(x_BTD)
        out, chosen = self.mlp(normed) if isinstance(self.mlp, MoE) else (self.mlp(normed), None)
        return x_BTD + out, chosen


class Trunk(nn.Module):
    """Embedding, blocks and the last norm."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Block(c, layer) for layer in range(c.num_hidden_layers))
        self.norm = nn.RMSNorm(c.hidden_size, eps=c.rms_norm_eps)


class DeepseekV3(nn.Module):
    """The whole model: token ids [B, T] to logits [B, T, V] and the choices [L, B, T, E] of its L mixtures."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.model = Trunk(c)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        cos, sin = rope_tables(c)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=_init_std(name, parameter, c))

    def forward(self, token_ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        T = token_ids_BT.shape[1]
        rope = self.cos[:T], self.sin[:T]
        x, choices = self.model.embed_tokens(token_ids_BT), []
        for block in self.model.layers:
            x, chosen = block(x, rope)
            if chosen is not None:
                choices.append(chosen)
        return self.lm_head(self.model.norm(x)), torch.stack(choices)

    def gates(self) -> list[Gate]:
        """The router of each mixture, in layer order."""
        return [block.mlp.gate for block in self.model.layers if isinstance(block.mlp, MoE)]


def rope_tables(c: Config) -> tuple[Tensor, Tensor]:
    """cos and sin of every position's angles, [max_position_embeddings, qk_rope_head_dim / 2] fp32."""
    frequencies = c.rope_theta ** (-torch.arange(0, c.qk_rope_head_dim, 2).float() / c.qk_rope_head_dim)
    angles = torch.outer(torch.arange(c.max_position_embeddings).float(), frequencies)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of DeepSeek's kind: neighbours (2i, 2i + 1) are one pair. x [..., T, R]."""
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def checkpoint_tensors(model: DeepseekV3) -> dict[str, Tensor]:
    """The state under DeepSeek's names: bf16, but the correction bias fp32 as its loaders expect it."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if ".mlp.experts." not in name:
            tensors[name] = tensor.float() if name.endswith("e_score_correction_bias") else tensor.bfloat16()
            continue
        prefix, projection = name.split(".mlp.experts.")
        axis = 1 if projection.startswith("down_proj") else 0
        for expert, part in enumerate(tensor.bfloat16().chunk(model.c.n_routed_experts, dim=axis)):
            tensors[f"{prefix}.mlp.experts.{expert}.{projection}"] = part
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def checkpoint_config(c: Config) -> dict[str, object]:
    """config.json: the shape, and the constants by which vLLM and transformers know DeepSeek-V3."""
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        **asdict(c),
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "num_nextn_predict_layers": 0,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_scaling": None,
        "rope_interleave": True,
        "tie_word_embeddings": False,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def _init_std(name: str, parameter: Tensor, c: Config) -> float:
    if "embed_tokens" in name or "lm_head" in name:
        return 0.5 if "embed" in name else 0.02
    fan_in = c.moe_intermediate_size * c.num_experts_per_tok if "experts.down" in name else parameter.shape[1]
    into_stream = name.endswith(("o_proj.weight", "down_proj.weight"))
    return float(fan_in**-0.5) * ((2 * c.num_hidden_layers) ** -0.5 if into_stream else 1.0)
