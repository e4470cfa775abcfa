"""A Deployment laid out on this machine: a command, an address and cores for every process. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from baton.base.errors import ConfigError
from baton.engine.command import Command, Place, serve_command
from baton.local.child import ChildPlan
from baton.local.cores import thread_env
from baton.local.ports import Ports
from baton.recipe.deployment import Deployment
from baton.recipe.workers import Worker, WorkersFile

ENGINE_HOST = "127.0.0.1"
GATEWAY = "gateway"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Every process of a deployment on this machine, engines first, the gateway last."""

    children: tuple[ChildPlan, ...]
    workers: WorkersFile
    gateway_url: str


def lay_out(
    deployment: Deployment,
    *,
    ports: Ports,
    cores: Sequence[int],
    workers_file: Path,
    python: str,
    vllm: tuple[str, ...],
) -> Layout:
    """Choose ports and threads, and write down what to start; `deployment.gateway.port` must be a real one.

    Raises   ConfigError if the deployment can't run on one machine without accelerators
    """
    _check_local(deployment)
    threads = thread_env(cores, deployment.engines)
    plans, workers = [], []
    for engine in deployment.engines:
        place = Place(
            host=ENGINE_HOST,
            http_port=ports.take(),
            nixl_port=ports.take(engine.dp_size_local),
            executable=vllm,
        )
        command = serve_command(deployment, engine, place)
        url = f"http://{ENGINE_HOST}:{place.http_port}"
        env = {**threads[engine.name], **command.env}
        plans.append(ChildPlan(name=engine.name, role=engine.role, command=Command(command.argv, env), url=url))
        workers.append(
            Worker(
                name=engine.name,
                role=engine.role,
                url=url,
                dp_ranks=engine.dp_ranks,
                nixl_port=place.nixl_port,
                weights=deployment.model.revision or "",
                attention_backend=str(engine.flags.get("attention-backend", "")),
            )
        )
    model = deployment.model
    gateway = _gateway_plan(deployment, workers_file, python)
    return Layout(
        children=(*plans, gateway),
        workers=WorkersFile(
            model=model.name,
            aliases=model.aliases,
            dtype=model.dtype,
            checkpoint=model.path,
            workers=tuple(workers),
        ),
        gateway_url=gateway.url,
    )


def _gateway_plan(deployment: Deployment, workers_file: Path, python: str) -> ChildPlan:
    gateway = deployment.gateway
    argv = [python, "-m", "baton", "gateway", "--workers", str(workers_file)]
    argv += ["--host", gateway.host, "--port", str(gateway.port)]
    argv += ["--request-timeout-s", str(gateway.request_timeout_s), "--max-body-bytes", str(gateway.max_body_bytes)]
    reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.host, gateway.host)
    url = f"http://[{reach}]:{gateway.port}" if ":" in reach else f"http://{reach}:{gateway.port}"
    env: Mapping[str, str] = {"PYTHONUNBUFFERED": "1"}
    return ChildPlan(name=GATEWAY, role=None, command=Command(tuple(argv), env), url=url)


def _check_local(deployment: Deployment) -> None:
    hardware = deployment.hardware.accelerator
    if hardware != "cpu":
        raise ConfigError(
            f"hardware.accelerator: {deployment.name} needs {hardware}, but `baton up` runs deployments on this "
            "machine's CPU; use a recipe with accelerator cpu, such as recipes/tiny-local.yaml"
        )
    path = deployment.model.path
    if path is not None and not (path / "config.json").is_file():
        raise ConfigError(f"model.path: {path} holds no config.json; give the folder of a Hugging Face checkpoint")
