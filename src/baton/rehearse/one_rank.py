"""One rank of a wide deployment as an engine of its own: the recipe's flags without other ranks, and a model to match.

With 1 / EP of the routed experts and the same top-k, a rank gets the same tokens for each expert (batch x top-k x EP /
experts) and holds the same weights as one rank of DP = EP does when routing is even. Only the exchange is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from baton.base.errors import ConfigError
from baton.catalogue.model import load_model, models
from baton.engine.command import Place, serve_command
from baton.recipe.deployment import Deployment, EngineSpec
from baton.recipe.recipe import Role

_OF_MANY_RANKS = ("enable-eplb", "eplb-config", "all2all-backend", "enable-dbo", "dbo-", "api-server-count")
"""flags, or how they begin, that mean something only where there are other ranks"""
_OF_SERVERS = ("enable-scale-out", "enable-prompt-tokens-details", "disable-uvicorn-access-log", "reasoning-parser")
_DEEPSEEK = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "attention_bias": False,
    "hidden_act": "silu",
    "moe_layer_freq": 1,
    "norm_topk_prob": True,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
_FP8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}


@dataclass(frozen=True, slots=True)
class OneRank:
    """What to start: flags and environment of the engine, what of the recipe's is left out, and the experts held."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    left_out: tuple[str, ...]
    experts_held: int
    ep_size: int


def one_rank(deployment: Deployment, role: Role, folder: Path, *, ep_size: int | None = None) -> OneRank:
    """Write a model's config.json for one rank into `folder` and return the engine that loads it with dummy weights.

    ep_size: another one than the recipe's. Raises ConfigError for tensor parallelism, experts that do not divide, or a
    model whose config.json baton has not got.
    """
    engine = deployment.of_role(role)[0]
    if engine.tp_size > 1:
        raise ConfigError(
            f"roles.{role}.tp_size {engine.tp_size}: one rank needs {engine.tp_size} GPUs; a rehearsal has one. "
            "Rehearse a layout of data-parallel ranks"
        )
    ranks = ep_size or engine.ep_size
    config = _config(deployment)
    held = _held(config, engine, ranks)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(_cut(config, held), indent=1), encoding="utf-8")
    left_out = tuple(flag for flag in engine.flags if flag.startswith(_OF_MANY_RANKS))
    flags = {flag: value for flag, value in engine.flags.items() if flag not in left_out and flag not in _OF_SERVERS}
    alone = replace(
        engine, dp_size=1, dp_size_local=1, dp_start_rank=0, ep_size=1, num_nodes=1, node_rank=0, flags=flags
    )
    model = deployment.model.model_copy(update={"path": folder, "repo": None, "revision": None})
    command = serve_command(replace(deployment, model=model), alone, Place(host="127.0.0.1", http_port=1, nixl_port=1))
    return OneRank(
        argv=("--model", str(folder), *_engine_flags(list(command.argv[3:]), role)),
        env={name: value for name, value in command.env.items() if not name.startswith("VLLM_NIXL")},
        left_out=left_out,
        experts_held=held,
        ep_size=ranks,
    )


def _engine_flags(argv: list[str], role: Role) -> list[str]:
    """Without a server's flags; decode's KV comes from vLLM's own connector for benchmarks, which fills it."""
    for flag in ("--host", "--port", "--kv-transfer-config"):
        at = argv.index(flag)
        del argv[at : at + 2]
    at = argv.index("--served-model-name")
    end = next(index for index in range(at + 1, len(argv)) if argv[index].startswith("--"))
    del argv[at:end]
    argv += ["--load-format", "dummy", "--skip-tokenizer-init", "--no-enable-prefix-caching"]
    if role is Role.DECODE:
        argv += ["--kv-transfer-config", json.dumps({"kv_connector": "DecodeBenchConnector", "kv_role": "kv_both"})]
    return argv


def _config(deployment: Deployment) -> dict[str, Any]:
    """The model's config.json: the checkpoint's, or for DeepSeek's architecture the catalogue's."""
    path = deployment.model.path
    if path is not None and (path / "config.json").is_file():
        return dict(json.loads((path / "config.json").read_text(encoding="utf-8")))
    names = f"{deployment.model.name} {deployment.model.repo} {path}".lower()
    known = next((name for name in sorted(models(), key=len, reverse=True) if name in names), None)
    shape = load_model(known).shape if known is not None else None
    if shape is None or not shape.is_mla:
        raise ConfigError(
            f"{deployment.model.name}: no config.json at model.path {path}, and the catalogue has no such model of "
            "DeepSeek's architecture; put the checkpoint's config.json there"
        )
    fields = {name: value for name, value in msgspec.structs.asdict(shape).items() if name != "head_dim"}
    quantized = {"quantization_config": _FP8} if deployment.model.quantization == "fp8" else {}
    return {**_DEEPSEEK, **fields, "num_key_value_heads": shape.num_attention_heads, **quantized}


def _held(config: Mapping[str, Any], engine: EngineSpec, ranks: int) -> int:
    """Routed experts of one rank, redundant ones among them."""
    experts = int(config.get("n_routed_experts") or config.get("num_experts") or 0)
    if not experts:
        return 0
    eplb = engine.flags.get("eplb-config")
    spare = int(eplb.get("num_redundant_experts") or 0) if isinstance(eplb, dict) else 0  # type: ignore[arg-type]
    if ranks != engine.ep_size and (experts + spare) % ranks:
        spare = -experts % ranks
    if (experts + spare) % ranks:
        raise ConfigError(
            f"roles.{engine.role}: {experts} + {spare} redundant experts do not divide over {ranks} ranks; "
            f"set eplb-config.num_redundant_experts to {-experts % ranks}, or another dp_size"
        )
    held = (experts + spare) // ranks
    if held < int(config.get("num_experts_per_tok") or 0):
        raise ConfigError(
            f"roles.{engine.role}: a rank of EP{ranks} holds {held} experts, fewer than the "
            f"{config['num_experts_per_tok']} that a token chooses; rehearse fewer ranks with --ep"
        )
    return held


def _cut(config: dict[str, Any], held: int) -> dict[str, Any]:
    """The config with that many experts; groups too small for the top-k become one."""
    if not held:
        return config
    groups, chosen, topk = (int(config.get(name) or 1) for name in ("n_group", "topk_group", "num_experts_per_tok"))
    fits = held % groups == 0 and held // groups * chosen >= topk and held // groups >= 2
    name = "n_routed_experts" if "n_routed_experts" in config else "num_experts"
    return {**config, name: held, **({} if fits else {"n_group": 1, "topk_group": 1})}
