"""A whole deployment on one machine, whoever starts it: what that rules out, and what its gateway is told. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from baton.base.errors import ConfigError
from baton.engine.advertised import advertised
from baton.engine.command import Place
from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Gateway, Role
from baton.recipe.workers import Worker, WorkersFile

HOST = "127.0.0.1"


def refuse_shared_ports(deployment: Deployment) -> None:
    """Refuse what would make engines of one machine listen on the same ports.

    Under external load balancing the ranks of a replica meet on a port that is the same for every replica
    (`--data-parallel-rpc-port`), and so do their health servers (`--data-parallel-supervisor-port`; vLLM 0.32.0,
    vllm/entrypoints/launchers/dp_supervisor.py). Several pods have these ports once each, one machine has not.

    Raises   ConfigError
    """
    for engine in deployment.engines:
        if engine.load_balancing == "external" and engine.dp_size > 1:
            raise ConfigError(
                f"roles.{engine.role}.load_balancing: external with dp_size {engine.dp_size} needs a machine or a pod "
                "for each replica; on one machine leave it out (internal: one address, and the gateway names the rank)"
            )


def workers_file(deployment: Deployment, places: Mapping[str, Place], checkpoint: Path | None) -> WorkersFile:
    """Return the workers file of a deployment whose engines listen at `places`, by engine name.

    checkpoint: folder that holds, or will hold, the model's config.json
    """
    model = deployment.model
    workers = (
        Worker(
            name=engine.name,
            role=engine.role,
            url=f"http://{places[engine.name].host}:{places[engine.name].http_port}",
            dp_ranks=engine.dp_ranks,
            nixl_port=places[engine.name].nixl_port,
            weights=model.revision or "",
            **advertised(engine, engine.dp_start_rank),
        )
        for engine in deployment.engines
    )
    return WorkersFile(
        model=model.name, aliases=model.aliases, dtype=model.dtype, checkpoint=checkpoint, workers=tuple(workers)
    )


def gateway_arguments(deployment: Deployment, workers: str) -> tuple[str, ...]:
    """Return what stands behind `baton` to start the gateway of a deployment; `workers` is the workers file.

    Raises   ConfigError for API keys that are in no file, or exact prefixes of engines that publish no KV events
    """
    gateway = deployment.gateway
    if gateway.exact_prefixes:
        _refuse_silent_engines(deployment)
    return (
        *("gateway", "--workers", workers, "--host", gateway.host, "--port", str(gateway.port)),
        *("--request-timeout-s", str(gateway.request_timeout_s), "--max-body-bytes", str(gateway.max_body_bytes)),
        *_options(gateway),
    )


def _options(gateway: Gateway) -> Iterator[str]:
    """What is not as `baton gateway` has it by itself."""
    if gateway.api_keys is not None:
        if gateway.api_keys.file is None:
            raise ConfigError(
                f"gateway.api_keys: got secret {gateway.api_keys.secret}, which is in a cluster; on one machine keys "
                "are read from a file: set gateway.api_keys.file too, or gateway.api_keys=null to let anybody ask"
            )
        yield from ("--api-keys", str(gateway.api_keys.file))
    for name in ("ttft_deadline_s", "max_queued", "hold_s", "processes"):
        value = getattr(gateway, name)
        if value != Gateway.model_fields[name].default:
            yield from (f"--{name.replace('_', '-')}", str(value))
    if gateway.exact_prefixes:
        yield "--exact-prefixes"


def _refuse_silent_engines(deployment: Deployment) -> None:
    """An index that nobody tells of anything would stay empty, and every request would go by load alone."""
    if any("kv_events_port" in advertised(engine, 0) for engine in deployment.of_role(Role.PREFILL)):
        return
    raise ConfigError(
        "gateway.exact_prefixes: got true, but no prefill engine publishes its KV events over TCP; set "
        "roles.prefill.flags.kv-events-config to {enable_kv_cache_events: true, publisher: zmq, "
        "endpoint: 'tcp://*:5557', replay_endpoint: 'tcp://*:5558'}, with ports that have room for every rank"
    )
