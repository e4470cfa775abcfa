"""Which GPUs of one machine each engine of a deployment takes. Pure: the machine's GPUs are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from baton.base.errors import ConfigError
from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Role

VISIBLE = "CUDA_VISIBLE_DEVICES"
_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""numbers GPUs as nvidia-smi does; without it CUDA puts the fastest first"""


def device_env(deployment: Deployment, available: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """Return the environment that gives every engine its GPUs, by the engine's name; engines on a CPU have none.

    available: the machine's GPUs, by number. Engines take them in order, prefill first, and share none.

    Raises   ConfigError if a replica spans several nodes, if there are fewer GPUs than are needed (with the sum), or if
             the recipe chooses GPUs itself
    """
    _refuse_several_nodes(deployment)
    _refuse_chosen_by_hand(deployment)
    needed = sum(engine.num_gpus for engine in deployment.engines)
    if needed > len(available):
        raise ConfigError(
            f"{deployment.name} needs {needed} GPUs on one machine: {_sum(deployment)}; {_count(available)}. Lower "
            "replicas or gpus_per_node of a role (gpus_per_node = dp_size x tp_size on one node)"
        )
    rest = list(available)
    chosen = {}
    for engine in deployment.engines:
        if engine.num_gpus:
            chosen[engine.name] = {**_ORDER, VISIBLE: ",".join(rest[: engine.num_gpus])}
            rest = rest[engine.num_gpus :]
    return chosen


def _refuse_several_nodes(deployment: Deployment) -> None:
    for engine in deployment.engines:
        if engine.num_nodes > 1:
            raise ConfigError(
                f"roles.{engine.role}.nodes: a replica of {deployment.name} spans {engine.num_nodes} nodes, and this "
                "is one machine; for several there is `baton render --target kubernetes`"
            )


def _refuse_chosen_by_hand(deployment: Deployment) -> None:
    for engine in deployment.engines:
        if engine.num_gpus and VISIBLE in engine.env:
            raise ConfigError(
                f"env {VISIBLE} of role {engine.role}: baton gives each engine its GPUs; remove it, and say which GPUs "
                f"of the machine may be taken in the environment: {VISIBLE}={engine.env[VISIBLE]}"
            )


def _sum(deployment: Deployment) -> str:
    terms = []
    for role in Role:
        engines = deployment.of_role(role)
        gpus = engines[0].num_gpus
        terms.append(f"roles.{role}.replicas {len(engines)} x gpus_per_node {gpus} = {len(engines) * gpus}")
    return ", ".join(terms)


def _count(available: Sequence[str]) -> str:
    if not available:
        return "there are none"
    return f"there {'is' if len(available) == 1 else 'are'} {len(available)} ({', '.join(available)})"
