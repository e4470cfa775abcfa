"""The command lines of Dynamo's worker (`python3 -m dynamo.vllm`) and of its frontend, for one release.

Made from the words of `serve_command`, so that no flag is spelled twice: what belongs to vLLM's own HTTP server is left
out and named with the reason, what Dynamo's operator adds itself is not given, and the role becomes a flag. Which flags
a release has is the catalogue's knowledge.

Sources, released packages of ai-dynamo 0.8.0 to 1.6.1: dynamo/vllm/args.py (roles, --connector, side channel),
dynamo/vllm/main.py and dp_topology.py (KV events, one port for each rank). The operator's, ai-dynamo/dynamo
deploy/operator/internal/dynamo/backend_vllm.go: what it adds to the command line of a worker of several nodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from baton.base.errors import BugError, ConfigError
from baton.catalogue.engine import EngineCatalogue, load_engine, nearest
from baton.engine.command import Place, serve_command
from baton.recipe.deployment import Deployment, EngineSpec
from baton.recipe.recipe import Role

WORKER, FRONTEND = "dynamo.vllm", "dynamo.frontend"
"""modules that `python3 -m` runs, and their names in the catalogue"""

KV_EVENTS_PORT = 20080
"""Dynamo's own default (DYN_VLLM_KV_EVENT_PORT); rank i publishes on KV_EVENTS_PORT + i, inside its pod"""

_MODE = "--disaggregation-mode"
_TRANSLATED = {
    "--reasoning-parser": "--dyn-reasoning-parser",
    "--tool-call-parser": "--dyn-tool-call-parser",
    "--chat-template": "--custom-jinja-template",
}
_OF_PLACE = frozenset({"--host", "--port"})
_OF_OPERATOR = frozenset(
    {
        "--data-parallel-size-local",
        "--data-parallel-start-rank",
        "--data-parallel-address",
        "--data-parallel-rpc-port",
    }
)


@dataclass(frozen=True, slots=True)
class DynamoCommand:
    """What stands behind `python3 -m dynamo.vllm`, its environment, and what of the recipe is not in it.

    left_out: settings that Dynamo has no use for, each with the reason
    """

    args: tuple[str, ...]
    env: Mapping[str, str]
    left_out: Mapping[str, str]


def vllm_of(release: str) -> str:
    """Return the vLLM inside the images of a Dynamo release.

    Raises   ConfigError listing the releases there are, for one that the catalogue lacks
    """
    inner = load_engine(WORKER, release).takes_engine_flags_of
    if inner is None or inner.version is None:
        raise BugError(f"the catalogue of {WORKER} {release} does not say which vLLM it takes")
    return inner.version


def worker_command(deployment: Deployment, engine: EngineSpec, place: Place) -> DynamoCommand:
    """Return the command of a role's workers; `engine` is the first node of a replica, the operator makes the others'.

    Raises   ConfigError for a way to balance load that Dynamo cannot run, and as `serve_command` does
    """
    _check_balancing(engine)
    release = deployment.cluster.dynamo.version
    program, inner = load_engine(WORKER, release), _inner(deployment)
    command = serve_command(deployment, engine, place)
    source, *words = command.argv[len(place.executable) + 1 :]
    args = ["--model", source, *_role(program, engine)]
    left_out: dict[str, str] = {}
    for flag, *values in _options(words):
        found = inner.flag(flag)
        name = found.name if found is not None else flag
        if name in _OF_PLACE or (engine.num_nodes > 1 and name in _OF_OPERATOR):
            continue
        if name == "--served-model-name":
            args += [flag, *values[:1]]
            left_out |= {"model.aliases": "a model has one name in Dynamo"} if values[1:] else {}
        elif _TRANSLATED.get(name) in program.flags:
            args += [_TRANSLATED[name], *values]
        elif found is not None and found.flag.frontend and name not in program.flags:
            left_out[flag] = "for vLLM's own HTTP server, which does not run (Dynamo's frontend answers clients)"
        else:
            args += [flag, *values]
    args += _kv_events(deployment, engine)
    return DynamoCommand(tuple(args), command.env, left_out)


def frontend_args(deployment: Deployment, replicas: int) -> tuple[str, ...]:
    """Return what stands behind `python3 -m dynamo.frontend`.

    Frontends that route by KV keep each other's load in view when there are several.
    """
    if not routes_by_kv(deployment):
        return ("--router-mode", "round-robin")
    return ("--router-mode", "kv", *(["--router-replica-sync"] if replicas > 1 else []))


def routes_by_kv(deployment: Deployment) -> bool:
    """Tell whether requests go where their prefix is cached: prefill caches prefixes, and says of which rank.

    Releases without --disaggregation-mode (up to 0.9.1) make one publisher for every rank of a replica on its first
    node, whoever owns them (main.py, setup_kv_event_publisher), and their router names ranks that a node does not have
    (ai-dynamo/dynamo#5001): there requests go round-robin.
    """
    is_cached = all(_caches_prefixes(engine) for engine in deployment.of_role(Role.PREFILL))
    return is_cached and _MODE in load_engine(WORKER, deployment.cluster.dynamo.version).flags


def _check_balancing(engine: EngineSpec) -> None:
    allowed = "hybrid" if engine.num_nodes > 1 else "internal"
    if engine.dp_size > 1 and engine.load_balancing not in (allowed, "hybrid"):
        raise ConfigError(
            f"roles.{engine.role}.load_balancing: got {engine.load_balancing} with {engine.num_nodes} nodes; Dynamo "
            "runs one worker a node, which balances over the ranks of its node and no others: leave it out"
        )


def _role(program: EngineCatalogue, engine: EngineSpec) -> list[str]:
    """The flags that say what a worker is for.

    Before --disaggregation-mode, workers had a connector of their own, which --kv-transfer-config needs gone; with it
    goes Dynamo's repair for one process that holds scheduler and worker (vllm#29369), so that is given here.
    """
    if _MODE in program.flags:
        return [_MODE, engine.role]
    flags = [f"--is-{engine.role}-worker", "--connector", "none"]
    if engine.tp_size == 1 and "distributed-executor-backend" not in engine.flags:
        flags += ["--distributed-executor-backend", "mp"]
    return flags


def _kv_events(deployment: Deployment, engine: EngineSpec) -> list[str]:
    """What makes a prefill worker say which prefixes it holds; releases from 1.2.1 on say nothing unless told.

    Decode workers are not chosen by prefix: their KV comes from prefill.
    """
    if engine.role is not Role.PREFILL or "kv-events-config" in engine.flags or not routes_by_kv(deployment):
        return []
    config = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": f"tcp://*:{KV_EVENTS_PORT}"}
    return ["--kv-events-config", json.dumps(config, separators=(",", ":"))]


def _caches_prefixes(engine: EngineSpec) -> bool:
    flags = engine.flags
    return flags.get("enable-prefix-caching") is not False and flags.get("no-enable-prefix-caching") is not True


def _inner(deployment: Deployment) -> EngineCatalogue:
    """The catalogue of the vLLM inside: of its own release, else of the newest of the same minor."""
    stated = deployment.engine_version
    return load_engine("vllm", nearest("vllm", stated) or stated)


def _options(words: Sequence[str]) -> Iterator[Sequence[str]]:
    """A command line's options, each with the values behind it."""
    starts = [at for at, word in enumerate(words) if word.startswith("--")]
    for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
        yield words[start:end]
