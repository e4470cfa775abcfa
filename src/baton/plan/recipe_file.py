"""A plan as a recipe: written new, or as changes to the recipe that was asked about."""

from __future__ import annotations

import json
from typing import Any

import yaml

from baton.perf.layout import ALLGATHER
from baton.plan.search import Candidate
from baton.plan.setup import Setup
from baton.recipe.recipe import Role

_VERSION = "0.33.0"
_LONGEST_OVER_MEAN = 4
"""how much longer than the question's mean a sequence may be before it is refused"""
_HEAD = """# Planned by baton. On your cluster, look at three fields of `cluster`: model_cache.storage_class,
# rdma_resource (what your RDMA device plugin calls it) and gateway_image (where you pushed it).
"""
_NVLINK_ENV = {
    "VLLM_SKIP_P2P_CHECK": "1",
    "VLLM_RANDOMIZE_DP_DUMMY_INPUTS": "1",
    "NCCL_MNNVL_ENABLE": "1",
    "NCCL_CUMEM_ENABLE": "1",
}
"""of ranks that share one NVLink domain over several nodes: as the committed GB200 recipe"""
_FLAGS = {
    "async-scheduling": True,
    "reasoning-parser": "deepseek_r1",
    "enable-scale-out": True,  # abort by request id
    "enable-prompt-tokens-details": True,
    "disable-uvicorn-access-log": True,
}
_DBO_FLAGS = ("dbo-prefill-token-threshold", "dbo-decode-token-threshold")
"""of no use without DBO"""


def settings(candidate: Candidate) -> list[str]:
    """Return a candidate as `--set` values for a recipe of its model and GPUs; null takes a flag of the recipe away."""
    setups = (candidate.prefill.setup, candidate.decode.setup)
    fields = {path: value for setup in setups for path, value in _fields(setup, candidate).items()}
    fields["model.kv_dtype"] = candidate.decode.setup.layout.kv_dtype
    return [f"{path}={json.dumps(value)}" for path, value in fields.items()]


def recipe_text(candidate: Candidate, name: str) -> str:
    """Return a whole recipe for a candidate.

    Where the catalogue knows no repository for the model's weights, `model.path` is where they must be mounted.
    """
    q, layout = candidate.question, candidate.decode.setup.layout
    repo = q.model.repos.get(layout.weight_dtype)
    folder = (repo.name if repo else q.model.name).rsplit("/", 1)[-1].lower()
    node = int(q.gpu.gpus_per_node.value)
    is_one_domain = node < q.gpu.nvlink_domain_size.value
    is_wide = max(candidate.prefill.setup.nodes, candidate.decode.setup.nodes) > 1
    longest = min(q.model.shape.max_position_embeddings, _round_up(int((q.isl + q.osl) * _LONGEST_OVER_MEAN), 1024))
    recipe: dict[str, Any] = {
        "baton": 1,
        "name": name,
        "description": f"{q.model.name} on {q.num_gpus} {q.accelerator}: {candidate.prefill.setup.describe()} prefill, "
        f"{candidate.decode.setup.describe()} decode, planned for {q.isl:g} tokens in and {q.osl:g} out.",
        "run_on": [],
        "model": {
            "name": repo.name if repo else q.model.name,
            **({"repo": repo.name, "revision": repo.revision} if repo else {}),
            "path": f"/model-cache/{folder}",
            "dtype": "bfloat16",
            "quantization": "none" if layout.weight_dtype == "bfloat16" else layout.weight_dtype,
            "kv_dtype": layout.kv_dtype,
            "max_model_len": longest,
        },
        "engine": {
            "version": _VERSION,
            "flags": _shared_flags(q.model.name),
            **({"env": _NVLINK_ENV} if is_one_domain else {}),
        },
        "hardware": {
            "accelerator": q.accelerator,
            "fabric": "nvlink" if is_one_domain else "infiniband" if is_wide else "none",
        },
        "kv_transfer": {"connector": "NixlConnector", "buffer_device": "cuda"},
        "gateway": {"host": "0.0.0.0", "port": 8000},
        "cluster": {"rdma_resource": "rdma/ib", "rdma_devices_per_node": node, "shared_memory": "80Gi"},
    }
    for setup in (candidate.prefill.setup, candidate.decode.setup):
        for path, value in _fields(setup, candidate).items():
            if value is not None:
                _put(recipe, path.split("."), value)
    _put(recipe, ["roles", "decode", "flags", "compilation-config"], {"cudagraph_mode": "FULL_DECODE_ONLY"})
    text = yaml.safe_dump(recipe, sort_keys=False, width=118, default_flow_style=None)
    return f"{_HEAD}{text}"


def _fields(setup: Setup, candidate: Candidate) -> dict[str, Any]:
    """A role's fields and flags; a flag that does not apply is null, which takes it away."""
    layout, pool = setup.layout, f"roles.{setup.role}"
    is_wide = layout.ep_size > 1
    flags: dict[str, Any] = {
        "enable-eplb": True if is_wide and layout.has_eplb else None,
        "eplb-config": _eplb(layout.num_redundant_experts) if is_wide and layout.has_eplb else None,
        "enable-dbo": True if layout.has_overlap else None,
        "all2all-backend": layout.all2all if is_wide and layout.all2all not in (*ALLGATHER, "none") else None,
        "gpu-memory-utilization": setup.gpu_memory_utilization,
        "speculative-config": _drafts(layout.mtp_tokens) if layout.mtp_tokens else None,
    }
    if not layout.has_overlap:
        flags |= dict.fromkeys(_DBO_FLAGS)
    if setup.role is Role.PREFILL:
        flags["max-num-batched-tokens"] = setup.max_num_batched_tokens
    else:
        seqs = min(setup.max_num_seqs, _round_up(int(candidate.decode.batch_at(candidate.question.tpot_s)) + 1, 8))
        flags |= {"max-num-seqs": seqs, "max-num-batched-tokens": max(seqs * (1 + layout.mtp_tokens), 64)}
    fields: dict[str, Any] = {
        f"{pool}.replicas": setup.replicas,
        f"{pool}.nodes": setup.nodes,
        f"{pool}.gpus_per_node": layout.num_gpus // setup.nodes,
        f"{pool}.dp_size": layout.dp_size,
        f"{pool}.tp_size": layout.tp_size,
        f"{pool}.expert_parallel": is_wide,
    }
    return fields | {f"{pool}.flags.{flag}": value for flag, value in flags.items()}


def _eplb(redundant: int) -> dict[str, Any]:
    return {"window_size": 1000, "step_interval": 3000, "num_redundant_experts": redundant, "log_balancedness": False}


def _drafts(tokens: int) -> dict[str, Any]:
    return {"method": "mtp", "num_speculative_tokens": tokens}


def _shared_flags(model: str) -> dict[str, Any]:
    return {flag: value for flag, value in _FLAGS.items() if flag != "reasoning-parser" or "DeepSeek-R1" in model}


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def _round_up(number: int, to: int) -> int:
    return -(-number // to) * to
