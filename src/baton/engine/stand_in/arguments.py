"""vLLM's command line and environment, as a stand-in reads them: what it lacks is refused, as the release would.

Flags come from the release's catalogue, so one that the release doesn't know is an error here too. Those that change
nothing for an engine without a model are accepted and ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from baton.base.errors import ConfigError
from baton.catalogue.engine import EngineCatalogue, FlagMatch, load_engine, nearest
from baton.engine.stand_in.config import KV_BYTES_PER_TOKEN, KvEventsPorts, StandInConfig, StepTime
from baton.engine.stand_in.release import Release

_DTYPE_BYTES = {"float32": 4, "float": 4}
_UNCACHED = ("CPU_MLA",)
"""attention backends without a prefix cache"""
_FAILURE_POLICIES = ("fail", "recompute")
_MULTI_PORT = "--data-parallel-multi-port-external-lb"


def read_arguments(
    words: Sequence[str], env: Mapping[str, str], version: str, *, step_time: StepTime, speed: float
) -> tuple[StandInConfig, str, int]:
    """What `vllm serve MODEL ...` asks for: configuration, host and port.

    words     from `serve` on
    version   the release whose flags are taken and whose names are spoken
    Raises    ConfigError naming the word
    """
    known = nearest("vllm", version)
    if known is None:
        raise ConfigError(f"--engine-version is {version}; the catalogue knows no vLLM release near it")
    if len(words) < 2 or words[0] != "serve" or words[1].startswith("-"):
        raise ConfigError(f"expected `serve MODEL` and vLLM's flags, got {' '.join(words[:3])!r}")
    options = _options(words[2:], load_engine("vllm", known))
    model = words[1]
    names = options.get("--served-model-name") or [model]
    names = names if isinstance(names, list) else [names]
    backend = str(options.get("--attention-backend", ""))
    config = StandInConfig(
        model=names[0],
        aliases=tuple(names[1:]),
        root=model,
        version=version,
        max_model_len=_length(options.get("--max-model-len", 32768)),
        max_num_seqs=_whole(options, "--max-num-seqs", 256),
        max_num_batched_tokens=_length(options.get("--max-num-batched-tokens", 8192)),
        block_size=_whole(options, "--block-size", 16),
        num_gpu_blocks=_whole(options, "--num-gpu-blocks-override", 8192),
        enable_prefix_caching=bool(options.get("--enable-prefix-caching", backend not in _UNCACHED)),
        enable_prompt_tokens_details=bool(options.get("--enable-prompt-tokens-details", False)),
        enable_scale_out=bool(options.get("--enable-scale-out", False)),
        tool_parser=bool(options.get("--enable-auto-tool-choice", False)),
        reasoning_tokens=8 if options.get("--reasoning-parser") else 0,
        cache_dtype=str(options.get("--kv-cache-dtype", "auto")),
        kv_bytes_per_token=_kv_bytes_per_token(Path(model), str(options.get("--dtype", "auto"))),
        dev_mode=env.get("VLLM_SERVER_DEV_MODE") == "1",
        step_time=step_time,
        speed=speed,
        **_parallelism(options),
        **_kv_transfer(_json_of(options, "--kv-transfer-config"), env, Release(version)),
        kv_events=_kv_events(_json_of(options, "--kv-events-config")),
    )
    return config, str(options.get("--host") or "0.0.0.0"), _whole(options, "--port", 8000)


def _options(words: Sequence[str], catalogue: EngineCatalogue) -> dict[str, Any]:
    """Values of flags by their names in the catalogue; True and False for those that are bare or negated."""
    found: dict[str, Any] = {}
    place = 0
    while place < len(words):
        word = words[place]
        match = catalogue.flag(word) if word.startswith("-") else None
        if match is None:
            raise ConfigError(f"vLLM {catalogue.version} has no flag {word!r}; see `baton settings`")
        place += 1
        values = [word.split("=", 1)[1]] if "=" in word else []
        while not values or isinstance(match.flag.nargs, str):
            if "=" in word or place == len(words) or not _is_value(words[place], catalogue):
                break
            values.append(words[place])
            place += 1
        _take(found, match, values)
    return found


def _take(found: dict[str, Any], match: FlagMatch, values: list[str]) -> None:
    name = match.name
    if match.path:
        raise ConfigError(f"{name}.{'.'.join(match.path)}: a stand-in takes {name} as one JSON object")
    takes_none = match.negated or match.flag.bare or match.flag.negation
    if not values and not takes_none and match.flag.const is None:
        raise ConfigError(f"{name} needs a value")
    if not values:
        found[name] = not match.negated
    else:
        found[name] = values if isinstance(match.flag.nargs, str) else values[-1]


def _is_value(word: str, catalogue: EngineCatalogue) -> bool:
    if not word.startswith("-") or word == "-":
        return True
    return word[1:2].isdigit() and catalogue.flag(word) is None


def _whole(options: Mapping[str, Any], name: str, default: int) -> int:
    value = options.get(name, default)
    try:
        return int(str(value))
    except ValueError:
        raise ConfigError(f"{name} is {value!r}; expected a whole number, such as {default}") from None


def _seconds(options: Mapping[str, Any], name: str, default: float) -> float:
    value = options.get(name, default)
    try:
        found = float(str(value))
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ConfigError(f"{name} is {value!r}; expected seconds, a number above 0")
    return found


def _length(value: Any) -> int:
    """Tokens; 1k is 1000, 1K is 1024."""
    text = str(value)
    scale = {"k": 1000, "K": 1024, "m": 10**6, "M": 2**20}.get(text[-1:], 1)
    try:
        return int(float(text.rstrip("kKmM")) * scale)
    except ValueError:
        raise ConfigError(f"{text!r} is no number of tokens that a stand-in can take; give one, such as 8192") from None


def _json_of(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    try:
        value = json.loads(options.get(name, "{}"))
    except ValueError as error:
        raise ConfigError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is {value!r}; expected a JSON object")
    return value


def _parallelism(options: Mapping[str, Any]) -> dict[str, Any]:
    """This server's ranks: all of them, or those of its node, or one under external load balancing."""
    if _MULTI_PORT in options or "--headless" in options:
        raise ConfigError(f"{_MULTI_PORT} and --headless: a stand-in serves all its ranks on one port; give neither")
    size = _whole(options, "--data-parallel-size", 1)
    if "--data-parallel-rank" in options:
        return {"dp_size": 1, "dp_rank_start": _whole(options, "--data-parallel-rank", 0)}
    local = _whole(options, "--data-parallel-size-local", size)
    return {"dp_size": local, "dp_rank_start": _whole(options, "--data-parallel-start-rank", 0)}


def _kv_transfer(settings: Mapping[str, Any], env: Mapping[str, str], release: Release) -> dict[str, Any]:
    if not settings:
        return {"kv_connector": False}
    connector = settings.get("kv_connector")
    if connector != "NixlConnector":
        raise ConfigError(f"kv_connector is {connector!r}; a stand-in speaks for NixlConnector only")
    found: dict[str, Any] = {"kv_connector": True}
    if "kv_load_failure_policy" in settings:
        policy = settings["kv_load_failure_policy"]
        if policy not in _FAILURE_POLICIES:
            raise ConfigError(f"kv_load_failure_policy is {policy!r}; expected {' or '.join(_FAILURE_POLICIES)}")
        found["kv_load_failure_policy"] = policy
    extra = settings.get("kv_connector_extra_config", {})
    if not release.has_leases:
        found["kv_lease_duration_s"] = _seconds(env, "VLLM_NIXL_ABORT_REQUEST_TIMEOUT", release.hold_s)
    elif "kv_lease_duration" in extra:
        found["kv_lease_duration_s"] = _seconds(extra, "kv_lease_duration", 0)
    found["side_channel_host"] = env.get("VLLM_NIXL_SIDE_CHANNEL_HOST", "127.0.0.1")
    found["side_channel_port"] = _whole(env, "VLLM_NIXL_SIDE_CHANNEL_PORT", 5600)
    return found


def _kv_events(settings: Mapping[str, Any]) -> KvEventsPorts | None:
    if not settings.get("enable_kv_cache_events") or settings.get("publisher", "zmq") != "zmq":
        return None
    replay = settings.get("replay_endpoint")
    return KvEventsPorts(
        port=_port(settings.get("endpoint", "tcp://*:5557")),
        replay_port=None if replay is None else _port(replay),
        topic=str(settings.get("topic", "")),
        buffer_steps=_whole(settings, "buffer_steps", 10_000),
        hwm=_whole(settings, "hwm", 100_000),
    )


def _port(endpoint: str) -> int:
    address, _, port = endpoint.rpartition(":")
    if not address.startswith("tcp://") or not port.isdigit():
        raise ConfigError(f"endpoint of KV events {endpoint!r}; expected tcp://*:PORT")
    return int(port)


def _kv_bytes_per_token(model: Path, dtype: str) -> int:
    """From the model's config.json where it lies here, else DeepSeek-R1's in bfloat16."""
    try:
        shape = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return KV_BYTES_PER_TOKEN
    if "kv_lora_rank" in shape:
        values = shape["kv_lora_rank"] + shape["qk_rope_head_dim"]
    else:
        values = 2 * shape["num_key_value_heads"] * shape["head_dim"]
    return int(shape["num_hidden_layers"] * values * _DTYPE_BYTES.get(dtype, 2))
