"""One engine's exact command line and environment.

A pure function of the Deployment, one EngineSpec of it, and the Place a target found for that engine. It knows how
`vllm serve` spells what a recipe says, in the release it names; not what machine it is, nor whether the flags of a
recipe exist.

Invariant: a flag that a typed field of the recipe decides is written here and nowhere else. A recipe that gives such a
flag by hand (abbreviated or negated too) is refused, so that a recipe's fields can be believed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import JsonValue

from baton.base.errors import BugError, ConfigError
from baton.catalogue.engine import EngineCatalogue, load_engine, nearest
from baton.recipe.deployment import Deployment, EngineSpec
from baton.recipe.recipe import Model, Role

_PLACE = "nothing: the target chooses addresses and ports"
_BALANCING = "roles.{role}.load_balancing, dp_size and nodes"
FIELD_OF_FLAG: Mapping[str, str] = {
    "model": "model.path or model.repo",
    "model-tag": "model.path or model.repo",
    "revision": "model.revision",
    "served-model-name": "model.name and model.aliases",
    "dtype": "model.dtype",
    "quantization": "model.quantization",
    "kv-cache-dtype": "model.kv_dtype",
    "max-model-len": "model.max_model_len",
    "host": _PLACE,
    "port": _PLACE,
    "uds": _PLACE,
    "tensor-parallel-size": "roles.{role}.tp_size",
    "data-parallel-size": "roles.{role}.dp_size",
    "data-parallel-size-local": "roles.{role}.dp_size and nodes",
    "data-parallel-start-rank": "roles.{role}.dp_size and nodes",
    "data-parallel-rank": _BALANCING,
    "data-parallel-hybrid-lb": _BALANCING,
    "data-parallel-external-lb": _BALANCING,
    "data-parallel-multi-port-external-lb": _BALANCING,
    "data-parallel-address": _PLACE,
    "data-parallel-rpc-port": _PLACE,
    "headless": _BALANCING,
    "enable-expert-parallel": "roles.{role}.expert_parallel",
    "kv-transfer-config": "kv_transfer",
}
"""every flag written here: the recipe's field that decides it"""

_ENV_OF_PLACE = frozenset({"VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"})
_FAILURE_POLICY = "kv_load_failure_policy"
_BEFORE_LEASES = "VLLM_NIXL_ABORT_REQUEST_TIMEOUT"
"""a variable that went when NIXL's leases came, in 0.22 (vLLM's nixl connector, 0.20.2 and 0.22.1)"""
_KV_ROLE = {Role.PREFILL: "kv_producer", Role.DECODE: "kv_consumer"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one engine runs and listens.

    host           address that HTTP and NIXL bind, and that the other role reaches
    http_port      one port; one for each local rank, from this on, under external load balancing
    nixl_port      side channel of this engine's first data-parallel rank; its rank i listens on nixl_port + i
    executable     what stands before `serve`
    dp_address     address of the replica's first node; needed when a replica spans nodes
    dp_rpc_port    port there for the coordination of data-parallel ranks; needed when a replica spans nodes
    """

    host: str
    http_port: int
    nixl_port: int
    executable: tuple[str, ...] = ("vllm",)
    dp_address: str | None = None
    dp_rpc_port: int | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute, and what to add to the environment it inherits."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


def serve_command(deployment: Deployment, engine: EngineSpec, place: Place) -> Command:
    """The `vllm serve` command of one engine.

    Raises   ConfigError if the recipe sets a flag or variable by hand that one of its fields, or the target, decides
    """
    _refuse_owned(deployment, engine)
    model = deployment.model
    source = str(model.path) if model.path is not None else str(model.repo)
    argv = [*place.executable, "serve", source]
    argv += [] if model.path is not None else ["--revision", str(model.revision)]
    argv += ["--host", place.host, "--port", str(place.http_port)]
    argv += ["--served-model-name", model.name, *model.aliases]
    argv += ["--max-model-len", str(model.max_model_len)]
    argv += _precision(model)
    argv += _parallelism(engine, place)
    argv += ["--kv-transfer-config", _json(_kv_transfer(deployment, engine))]
    for flag, value in _with_defaults(engine).items():
        argv += _flag(flag, value)
    return Command(tuple(argv), {**_environment(engine, place, offline=model.path is not None), **engine.env})


def _refuse_owned(deployment: Deployment, engine: EngineSpec) -> None:
    for flag in engine.flags:
        name = flag.removeprefix("no-")
        # argparse takes an unambiguous beginning for the whole flag; no real flag is a beginning of one of ours.
        owned = name if name in FIELD_OF_FLAG else next((own for own in FIELD_OF_FLAG if own.startswith(name)), None)
        if owned is not None:
            spelled = "" if owned == flag else f" (it means --{owned})"
            field = FIELD_OF_FLAG[owned].format(role=engine.role)
            raise ConfigError(
                f"flag {flag!r} of role {engine.role}{spelled}: baton writes it from the recipe; "
                f"remove it and set {field}"
            )
    if "kv_lease_duration" in deployment.kv_transfer.extra:
        raise ConfigError("kv_transfer.extra.kv_lease_duration: baton writes it; remove it and set kv_transfer.lease_s")
    for name in sorted(_ENV_OF_PLACE & engine.env.keys()):
        raise ConfigError(f"env {name} of role {engine.role}: baton writes it; remove it and set {_PLACE}")


def _precision(model: Model) -> list[str]:
    """Number formats of computation, weights and KV.

    `--quantization fp8` confirms a checkpoint stored in fp8 (DeepSeek-R1's) and turns a bf16 one into fp8: either way
    the weights are what the recipe says. For nvfp4 there is no flag: the method is named by the tool that wrote the
    checkpoint (modelopt_fp4, compressed-tensors), the engine reads it there, and can't make nvfp4 while loading.
    """
    flags = ["--dtype", model.dtype]
    if model.quantization == "fp8":
        flags += ["--quantization", "fp8"]
    if model.kv_dtype not in (None, model.dtype):
        flags += ["--kv-cache-dtype", str(model.kv_dtype)]
    return flags


def _parallelism(engine: EngineSpec, place: Place) -> list[str]:
    flags = ["--tensor-parallel-size", str(engine.tp_size), "--data-parallel-size", str(engine.dp_size)]
    if engine.ep_size > 1:
        flags.append("--enable-expert-parallel")
    if engine.dp_size == 1:
        return flags
    local, start = str(engine.dp_size_local), str(engine.dp_start_rank)
    if engine.load_balancing == "external" and engine.dp_size_local == 1:
        flags += ["--data-parallel-external-lb", "--data-parallel-rank", start]
    elif engine.load_balancing == "external":
        flags += ["--data-parallel-multi-port-external-lb", "--data-parallel-size-local", local]
        flags += ["--data-parallel-start-rank", start]
    elif engine.num_nodes > 1:
        flags += ["--data-parallel-size-local", local, "--data-parallel-start-rank", start]
        if engine.load_balancing == "hybrid":
            flags.append("--data-parallel-hybrid-lb")
        elif engine.node_rank > 0:
            flags.append("--headless")
    if engine.num_nodes > 1:
        if place.dp_address is None or place.dp_rpc_port is None:
            raise BugError(
                f"{engine.name} is one of {engine.num_nodes} nodes, but its place has no dp_address or dp_rpc_port"
            )
        flags += ["--data-parallel-address", place.dp_address, "--data-parallel-rpc-port", str(place.dp_rpc_port)]
    return flags


def _kv_transfer(deployment: Deployment, engine: EngineSpec) -> dict[str, Any]:
    """The connector's settings, of which older releases lack two.

    Without a failure policy such a release recomputes what it could not load. Where there is no lease, one timeout ends
    KV that is not fetched; it also counts the time that decode lets a request wait, so `lease_s` does not set it.
    """
    transfer, release = deployment.kv_transfer, _release(deployment.engine_version)
    settings = {
        "kv_connector": transfer.connector,
        "kv_role": _KV_ROLE[engine.role],
        "kv_buffer_device": transfer.buffer_device,
    }
    if release is None or _FAILURE_POLICY in release.configs["KVTransferConfig"]:
        settings[_FAILURE_POLICY] = transfer.load_failure_policy
    has_lease = release is None or _BEFORE_LEASES not in release.envs
    extra = {**({"kv_lease_duration": transfer.lease_s} if has_lease else {}), **transfer.extra}
    return {**settings, **({"kv_connector_extra_config": extra} if extra else {})}


@cache
def _release(version: str) -> EngineCatalogue | None:
    """What a release accepts, or another patch of its minor; None for one that the catalogue has no patch of."""
    known = nearest("vllm", version)
    return load_engine("vllm", known) if known is not None else None


def _with_defaults(engine: EngineSpec) -> Mapping[str, JsonValue]:
    """The recipe's flags, over what baton needs of an engine it serves through.

    One API server process: vLLM starts one for each data-parallel rank, all on one port, and an abort by request id
    then reaches one that never saw the request.
    """
    defaults: dict[str, JsonValue] = {"api-server-count": 1} if engine.dp_size > 1 else {}
    if engine.load_balancing == "internal" and engine.node_rank > 0:
        defaults = {}
    return {**defaults, **engine.flags}


def _flag(name: str, value: JsonValue) -> list[str]:
    if value is None:
        return []
    if value is True:
        return [f"--{name}"]
    if value is False:
        return [f"--no-{name}"]
    if isinstance(value, dict):
        return [f"--{name}", _json(value)]
    if isinstance(value, list):
        return [f"--{name}", *(item if isinstance(item, str) else _json(item) for item in value)]
    return [f"--{name}", str(value)]


def _environment(engine: EngineSpec, place: Place, *, offline: bool) -> dict[str, str]:
    # vLLM adds the rank's number over the whole replica, a Place counts from this engine's first rank.
    base_port = place.nixl_port - engine.dp_start_rank
    if base_port < 1:
        raise BugError(
            f"{engine.name}: nixl_port {place.nixl_port} must be above its first rank {engine.dp_start_rank}"
        )
    env = {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": place.host,
        "VLLM_NIXL_SIDE_CHANNEL_PORT": str(base_port),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if offline:
        env["HF_HUB_OFFLINE"] = "1"
    return env


def _json(value: JsonValue | dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
