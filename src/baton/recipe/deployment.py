"""The Deployment: a Recipe with every choice made.

`resolve` is pure. Nothing in a Deployment is "auto": sizes are multiplied out, every engine process is named with the
data-parallel ranks and GPUs it owns, flags and environment are merged. Addresses are not here: each target has its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from baton.base.errors import ConfigError
from baton.recipe.cluster import Cluster
from baton.recipe.flags import Env, Flags
from baton.recipe.recipe import Gateway, Hardware, KvTransfer, Model, Pool, Recipe, Role, TestRequest, load_recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec:
    """One engine process group: what `vllm serve` runs on one node of one replica.

    `dp_start_rank` and `dp_size_local` give the data-parallel ranks this node owns, `[start, start + local)`;
    `num_gpus` is what they take of the node (0 on a CPU); `ep_size` is 1 without expert parallelism.
    """

    name: str
    role: Role
    replica: int
    node_rank: int
    num_nodes: int
    dp_size: int
    dp_size_local: int
    dp_start_rank: int
    tp_size: int
    ep_size: int
    load_balancing: Literal["internal", "hybrid", "external"]
    num_gpus: int
    flags: Flags
    env: Env

    @property
    def dp_ranks(self) -> tuple[int, ...]:
        """Data-parallel ranks of this process group, as numbered over the whole replica."""
        return tuple(range(self.dp_start_rank, self.dp_start_rank + self.dp_size_local))


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """Everything that must run, nothing left to choose."""

    name: str
    recipe_digest: str
    model: Model
    engine_name: str
    engine_version: str
    hardware: Hardware
    kv_transfer: KvTransfer
    engines: tuple[EngineSpec, ...]
    gateway: Gateway
    cluster: Cluster
    test: TestRequest
    run_on: tuple[str, ...]

    def of_role(self, role: Role) -> tuple[EngineSpec, ...]:
        """The engines of one pool, in order."""
        return tuple(engine for engine in self.engines if engine.role is role)


def load_deployment(path: Path, settings: Sequence[str] | None = None) -> Deployment:
    """Read a recipe file with fields set by `--set`, and make every choice it leaves open.

    Raises   ConfigError as `load_recipe` and `resolve` do
    """
    return resolve(load_recipe(path, settings), path.parent)


def resolve(recipe: Recipe, folder: Path) -> Deployment:
    """Make every choice a recipe leaves open; relative paths start at `folder`, the recipe file's.

    Raises   ConfigError when sizes do not multiply out or a combination cannot run
    """
    path = recipe.model.path and (folder / recipe.model.path).resolve()
    model = recipe.model.model_copy(update={"kv_dtype": recipe.model.kv_dtype or recipe.model.dtype, "path": path})
    engines = [
        engine
        for role, pool in ((Role.PREFILL, recipe.roles.prefill), (Role.DECODE, recipe.roles.decode))
        for engine in _engines(recipe, role, pool)
    ]
    keys = recipe.gateway.api_keys
    if keys is not None and keys.file is not None:
        keys = keys.model_copy(update={"file": (folder / keys.file).resolve()})
    return Deployment(
        name=recipe.name,
        recipe_digest=recipe.digest,
        model=model,
        engine_name=recipe.engine.name,
        engine_version=recipe.engine.version,
        hardware=recipe.hardware,
        kv_transfer=recipe.kv_transfer,
        engines=tuple(engines),
        gateway=recipe.gateway.model_copy(update={"api_keys": keys}),
        cluster=recipe.cluster,
        test=recipe.test,
        run_on=recipe.run_on,
    )


def _engines(recipe: Recipe, role: Role, pool: Pool) -> list[EngineSpec]:
    _check_sizes(role, pool, recipe.hardware)
    dp_size_local = pool.dp_size // pool.nodes
    flags, env = _settings(recipe, role, pool)
    return [
        EngineSpec(
            name=f"{role}-{replica}" if pool.nodes == 1 else f"{role}-{replica}-{node_rank}",
            role=role,
            replica=replica,
            node_rank=node_rank,
            num_nodes=pool.nodes,
            dp_size=pool.dp_size,
            dp_size_local=dp_size_local,
            dp_start_rank=node_rank * dp_size_local,
            tp_size=pool.tp_size,
            ep_size=pool.dp_size * pool.tp_size if pool.expert_parallel else 1,
            load_balancing=pool.load_balancing or ("internal" if pool.nodes == 1 else "hybrid"),
            num_gpus=pool.gpus_per_node,
            flags=flags,
            env=env,
        )
        for replica in range(pool.replicas)
        for node_rank in range(pool.nodes)
    ]


def _settings(recipe: Recipe, role: Role, pool: Pool) -> tuple[Flags, Env]:
    """Flags and environment of a role: the engine's, the role's over them, and over both what its release needs."""
    flags: Flags = {**recipe.engine.flags, **pool.flags}
    env: dict[str, str | None] = {**recipe.engine.env, **pool.env}
    for era in recipe.eras:
        if era.holds(recipe.engine.version):
            for settings in (era.engine, era.prefill if role is Role.PREFILL else era.decode):
                flags |= settings.flags
                env |= settings.env
    return flags, {name: value for name, value in env.items() if value is not None}


def _check_sizes(role: Role, pool: Pool, hardware: Hardware) -> None:
    where, ranks, gpus = f"roles.{role}", pool.dp_size * pool.tp_size, pool.nodes * pool.gpus_per_node
    if hardware.accelerator == "cpu":
        if gpus:
            raise ConfigError(f"{where}.gpus_per_node: got {pool.gpus_per_node} with hardware.accelerator cpu; set 0")
        if pool.nodes > 1:
            raise ConfigError(
                f"{where}.nodes: got {pool.nodes} with hardware.accelerator cpu; CPU replicas span 1 node"
            )
    elif ranks != gpus:
        raise ConfigError(
            f"{where}: dp_size {pool.dp_size} x tp_size {pool.tp_size} = {ranks} ranks, but nodes {pool.nodes} x "
            f"gpus_per_node {pool.gpus_per_node} = {gpus} GPUs; every rank needs exactly one GPU"
        )
    if pool.dp_size % pool.nodes:
        raise ConfigError(f"{where}: dp_size {pool.dp_size} does not divide over nodes {pool.nodes}")
    if pool.expert_parallel and ranks == 1:
        raise ConfigError(f"{where}.expert_parallel: true with one rank splits nothing; set dp_size or tp_size above 1")
