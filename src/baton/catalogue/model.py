"""Models by their shape: parameters by part, KV bytes a token, experts; derived here from what config.json says.

Attention is multi-head latent (DeepSeek) or grouped-query (Llama, Qwen); layers are dense or have routed experts.
Source of the formulas: DeepSeek-V2 report (2405.04434), section 2; DeepSeek-V3 report (2412.19437), 2.1 and 2.2;
for grouped queries 2305.13245 and transformers' modeling files of the models named.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from baton.base.errors import ConfigError
from baton.catalogue import figures
from baton.catalogue.figures import Figure

_FOLDER = Path(__file__).parent / "models"
_VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1}
_FP8_DS_MLA = "fp8_ds_mla"


class Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields of a checkpoint's config.json that its size follows from, under their own names.

    q_lora_rank is None where queries are projected in one step. kv_lora_rank is 0 where attention is grouped-query,
    which num_key_value_heads and head_dim then describe. n_routed_experts is 0 where every layer is dense.
    """

    hidden_size: int
    vocab_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    q_lora_rank: int | None = None
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    v_head_dim: int = 0
    num_key_value_heads: int = 0
    head_dim: int = 0
    first_k_dense_replace: int = 0
    moe_intermediate_size: int = 0
    n_routed_experts: int = 0
    n_shared_experts: int = 0
    num_experts_per_tok: int = 0
    n_group: int = 1
    topk_group: int = 1
    topk_method: str = "greedy"
    num_nextn_predict_layers: int = 0

    @property
    def is_mla(self) -> bool:
        """Whether attention is multi-head latent: one latent a token instead of keys and values."""
        return self.kv_lora_rank > 0


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers of parameters by part, over all layers.

    routed_experts: all of them; one_expert: one, in one layer. router: gate and its correction bias. mtp: the
    next-token-prediction layers with one more of everything but embedding and head, which they share.
    """

    embedding: int
    head: int
    attention: int
    dense_mlp: int
    routed_experts: int
    shared_experts: int
    router: int
    norms: int
    one_expert: int
    mtp: int

    @property
    def total(self) -> int:
        """Parameters of the model itself, without the MTP layers."""
        experts = self.routed_experts + self.shared_experts
        return self.embedding + self.head + self.attention + self.dense_mlp + experts + self.router + self.norms


class Repo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A Hugging Face repository of a model's weights in one number format, at one commit."""

    name: str
    revision: str
    note: str = ""


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model: its shape and where that stands, and the sizes its makers state, to hold the formulas against.

    repos: where its weights are, by number format.
    """

    name: str
    shape: Shape
    shape_source: str
    weight_dtype: str
    weight_dtype_source: str
    stated: dict[str, Figure] = {}
    repos: dict[str, Repo] = {}

    @property
    def num_moe_layers(self) -> int:
        """Layers that have routed experts."""
        return self.shape.num_hidden_layers - self.shape.first_k_dense_replace if self.shape.n_routed_experts else 0

    @property
    def num_dense_layers(self) -> int:
        """Layers with one large MLP instead of experts."""
        return self.shape.num_hidden_layers - self.num_moe_layers

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Return the KV cache's bytes for one token over all layers.

        A layer keeps one latent of kv_lora_rank and one rotary key of qk_rope_head_dim values, or a key and a value for
        each of num_key_value_heads. fp8_ds_mla: the latent in FP8 with one float32 scale for every 128 values, the
        rotary key in bfloat16 (656 bytes for 512 + 64).
        Raises ConfigError for a data type that is none of these. Source: FlashMLA README, "FP8 KV cache".
        """
        s, latent, rope = self.shape, self.shape.kv_lora_rank, self.shape.qk_rope_head_dim
        if dtype == _FP8_DS_MLA and s.is_mla:
            return s.num_hidden_layers * (latent + latent // 128 * 4 + 2 * rope)
        if dtype not in _VALUE_BYTES:
            known = [*_VALUE_BYTES, *([_FP8_DS_MLA] if s.is_mla else [])]
            raise ConfigError(f"KV cache dtype {dtype!r}: use one of {', '.join(known)}")
        values = latent + rope if s.is_mla else 2 * s.num_key_value_heads * s.head_dim
        return s.num_hidden_layers * values * _VALUE_BYTES[dtype]

    def parts(self) -> Parts:
        """Return the parameters by part."""
        s, hidden, layers = self.shape, self.shape.hidden_size, self.shape.num_hidden_layers
        one = 3 * hidden * s.moe_intermediate_size
        has_bias = s.topk_method == "noaux_tc"
        router = hidden * s.n_routed_experts + (s.n_routed_experts if has_bias else 0)
        norms = 2 * hidden + s.kv_lora_rank + (s.q_lora_rank or 0)  # a grouped query's own norms: 1e-7 of the whole
        moe_layer = self._attention() + (s.n_routed_experts + s.n_shared_experts) * one + router + norms
        return Parts(
            embedding=s.vocab_size * hidden,
            head=s.vocab_size * hidden,
            attention=layers * self._attention(),
            dense_mlp=self.num_dense_layers * 3 * hidden * s.intermediate_size,
            routed_experts=self.num_moe_layers * s.n_routed_experts * one,
            shared_experts=self.num_moe_layers * s.n_shared_experts * one,
            router=self.num_moe_layers * router,
            norms=layers * norms + hidden,
            one_expert=one,
            mtp=s.num_nextn_predict_layers * (moe_layer + 2 * hidden * hidden + 3 * hidden),
        )

    def _attention(self) -> int:
        """Parameters of one layer's attention: query (in one step or two), KV down and up, output."""
        s, heads = self.shape, self.shape.num_attention_heads
        if not s.is_mla:
            return 2 * s.hidden_size * (heads + s.num_key_value_heads) * s.head_dim
        query_out = heads * (s.qk_nope_head_dim + s.qk_rope_head_dim)
        query = s.hidden_size * query_out if s.q_lora_rank is None else s.q_lora_rank * (s.hidden_size + query_out)
        down = s.hidden_size * (s.kv_lora_rank + s.qk_rope_head_dim)
        up = s.kv_lora_rank * heads * (s.qk_nope_head_dim + s.v_head_dim)
        return query + down + up + heads * s.v_head_dim * s.hidden_size


def models() -> tuple[str, ...]:
    """Return the names of the models the catalogue has."""
    return figures.names(_FOLDER)


def name_of(repo: str) -> str:
    """Return the catalogue's name of a repository's model: deepseek-r1 of deepseek-ai/DeepSeek-R1."""
    return repo.rsplit("/", 1)[-1].lower()


def load_model(name: str) -> Model:
    """Read one model; raises ConfigError, which lists the known ones, for another name."""
    return figures.read(_FOLDER, name, Model)
