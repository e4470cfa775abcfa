"""A Deployment laid out on this machine: a command, an address, cores or GPUs for every process. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from baton.base.errors import ConfigError
from baton.engine.command import Command, Place, serve_command
from baton.engine.devices import device_env
from baton.engine.one_machine import HOST, gateway_arguments, refuse_shared_ports, workers_file
from baton.local import gpus as machine_gpus
from baton.local.child import ChildPlan
from baton.local.cores import thread_env
from baton.local.gpus import Gpu
from baton.local.hub import snapshot
from baton.local.ports import Ports
from baton.recipe.deployment import Deployment
from baton.recipe.workers import WorkersFile

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
    gpus: Sequence[Gpu],
    hub: Path,
    workers_path: Path,
    python: str,
    vllm: tuple[str, ...],
) -> Layout:
    """Choose ports, threads and GPUs, and write down what to start; `deployment.gateway.port` must be a real one.

    hub: folder in which Hugging Face's library keeps what it fetched

    Raises   ConfigError if the deployment can't run on one machine, or not on this one
    """
    refuse_shared_ports(deployment)
    machine_gpus.fit(deployment, gpus)
    deployment = with_source(deployment)
    is_cpu = deployment.hardware.accelerator == "cpu"
    share = thread_env(cores, deployment.engines) if is_cpu else device_env(deployment, [gpu.index for gpu in gpus])
    plans, places = [], {}
    for engine in deployment.engines:
        place = Place(host=HOST, http_port=ports.take(), nixl_port=ports.take(engine.dp_size_local), executable=vllm)
        command = serve_command(deployment, engine, place)
        env: Mapping[str, str] = {**share[engine.name], **command.env}
        url = f"http://{HOST}:{place.http_port}"
        plans.append(ChildPlan(name=engine.name, role=engine.role, command=Command(command.argv, env), url=url))
        places[engine.name] = place
    gateway = _gateway_plan(deployment, workers_path, python)
    checkpoint = deployment.model.path or snapshot(hub, str(deployment.model.repo), str(deployment.model.revision))
    return Layout(
        children=(*plans, gateway),
        workers=workers_file(deployment, places, checkpoint),
        gateway_url=gateway.url,
    )


def with_source(deployment: Deployment) -> Deployment:
    """Return a deployment whose model is here, or comes from its repository: a path that is not here gives way to it.

    Raises   ConfigError if the checkpoint is not here and the recipe names no repository
    """
    model = deployment.model
    if model.path is None or (model.path / "config.json").is_file():
        return deployment
    if model.repo is None:
        raise ConfigError(
            f"model.path: {model.path} holds no config.json; give the folder of a Hugging Face checkpoint, or "
            "model.repo and model.revision to have it fetched"
        )
    return replace(deployment, model=model.model_copy(update={"path": None}))


def _gateway_plan(deployment: Deployment, workers_path: Path, python: str) -> ChildPlan:
    gateway = deployment.gateway
    argv = (python, "-m", "baton", *gateway_arguments(deployment, str(workers_path)))
    reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(gateway.host, gateway.host)
    url = f"http://[{reach}]:{gateway.port}" if ":" in reach else f"http://{reach}:{gateway.port}"
    return ChildPlan(name=GATEWAY, role=None, command=Command(argv, {"PYTHONUNBUFFERED": "1"}), url=url)
