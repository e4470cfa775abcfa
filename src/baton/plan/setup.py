"""How one role of a plan is set up: its replica's layout, its limits, and how many there are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from baton.base.errors import ConfigError
from baton.perf.layout import Layout
from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Role

_MAX_NUM_SEQS, _MAX_NUM_BATCHED_TOKENS, _UTILIZATION = 256, 8192, 0.9
"""what counts where a recipe is silent: vLLM's own defaults for servers on these GPUs (0.9 to 0.20, 0.92 since)"""
MTP_ACCEPTANCE = 0.85
"""of one drafted token. Source: DeepSeek-V3 report (2412.19437), 5.4.3: between 85 and 90 %"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One role: `replicas` of `layout`, each over `nodes` nodes."""

    role: Role
    layout: Layout
    replicas: int
    nodes: int
    max_num_seqs: int
    max_num_batched_tokens: int
    gpu_memory_utilization: float = _UTILIZATION

    @property
    def num_gpus(self) -> int:
        """GPUs of all replicas."""
        return self.replicas * self.layout.num_gpus

    def times(self, replicas: int) -> Setup:
        """Return it with another number of replicas."""
        return replace(self, replicas=replicas)

    def describe(self) -> str:
        """Return it in a few words: "2 x EP8"."""
        layout = self.layout
        size = f"EP{layout.ep_size}" if layout.ep_size > 1 else f"TP{layout.tp_size}" if layout.tp_size > 1 else "DP1"
        if layout.ep_size > 1 and layout.tp_size > 1:
            size = f"TP{layout.tp_size} EP{layout.ep_size}"
        return f"{self.replicas} x {size}"


def setup_of(deployment: Deployment, role: Role) -> Setup:
    """Return what a deployment runs for a role; raises ConfigError if its accelerator cannot be predicted."""
    engines = deployment.of_role(role)
    first = engines[0]
    if deployment.hardware.accelerator == "cpu":
        raise ConfigError(
            f"{deployment.name}: hardware.accelerator is cpu; the performance model knows GPUs. Give a recipe for GPUs"
        )
    flags, model = first.flags, deployment.model
    eplb, speculative = flags.get("eplb-config"), flags.get("speculative-config")
    has_eplb = bool(flags.get("enable-eplb"))
    drafts = _whole(speculative, "num_speculative_tokens")
    layout = Layout(
        dp_size=first.dp_size,
        tp_size=first.tp_size,
        ep_size=first.ep_size,
        weight_dtype="bfloat16" if model.quantization == "none" else model.quantization,
        attention_dtype="",
        kv_dtype=model.kv_dtype or model.dtype,
        all2all=str(flags.get("all2all-backend") or first.env.get("VLLM_ALL2ALL_BACKEND") or "allgather_reducescatter"),
        num_redundant_experts=_whole(eplb, "num_redundant_experts") if has_eplb else 0,
        has_eplb=has_eplb,
        has_overlap=bool(flags.get("enable-dbo")),
        mtp_tokens=drafts,
        mtp_acceptance=MTP_ACCEPTANCE if drafts else 0.0,
        offload_gib=_number(flags.get("cpu-offload-gb"), 0.0),
    )
    return Setup(
        role=role,
        layout=layout,
        replicas=len({engine.replica for engine in engines}),
        nodes=first.num_nodes,
        max_num_seqs=int(_number(flags.get("max-num-seqs"), _MAX_NUM_SEQS)),
        max_num_batched_tokens=int(_number(flags.get("max-num-batched-tokens"), _MAX_NUM_BATCHED_TOKENS)),
        gpu_memory_utilization=_number(flags.get("gpu-memory-utilization"), _UTILIZATION),
    )


def _whole(mapping: object, key: str) -> int:
    return int(_number(mapping.get(key), 0)) if isinstance(mapping, dict) else 0


def _number(value: object, otherwise: float) -> float:
    return (
        float(value) if isinstance(value, int | float | str) and str(value).replace(".", "", 1).isdigit() else otherwise
    )
