"""Where every engine of a deployment listens inside the cluster, known before anything runs.

A LeaderWorkerSet names its pods by group and index, and gives each a DNS name below a headless Service of its own name
(LeaderWorkerSet, docs, "Network configuration": subdomainPolicy Shared). Names resolve before a pod is ready.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.engine.advertised import advertised
from baton.recipe.deployment import Deployment, EngineSpec
from baton.recipe.workers import Worker, WorkersFile
from baton.render import names


def host(deployment: Deployment, engine: EngineSpec) -> str:
    """Return the DNS name of the pod an engine runs in."""
    group = names.engines(deployment, engine.role)
    pod = f"{group}-{engine.replica}" + (f"-{engine.node_rank}" if engine.node_rank else "")
    return f"{pod}.{group}.{deployment.cluster.namespace}.svc"


def serves_http(engine: EngineSpec) -> bool:
    """Tell whether an engine has an API server: under internal load balancing only a replica's first node has."""
    return engine.load_balancing != "internal" or engine.node_rank == 0


def workers_file(deployment: Deployment) -> WorkersFile:
    """Return the workers file of the gateway."""
    model = deployment.model
    return WorkersFile(
        model=model.name,
        aliases=model.aliases,
        dtype=model.dtype,
        checkpoint=model.path,
        workers=tuple(worker for engine in deployment.engines for worker in _workers(deployment, engine)),
    )


def _workers(deployment: Deployment, engine: EngineSpec) -> Iterator[Worker]:
    if not serves_http(engine):
        return
    ranks = _ranks(engine)
    for at, dp_ranks in enumerate(ranks):
        port = names.HTTP_PORT + at
        yield Worker(
            name=engine.name if len(ranks) == 1 else f"{engine.name}-{at}",
            role=engine.role,
            url=f"http://{host(deployment, engine)}:{port}",
            dp_ranks=dp_ranks,
            nixl_port=names.NIXL_PORT + engine.dp_start_rank + at,
            weights=deployment.model.revision or "",
            **advertised(engine, engine.dp_start_rank + at),
        )


def _ranks(engine: EngineSpec) -> list[tuple[int, ...]]:
    """The ranks behind each port, as X-data-parallel-rank counts them there.

    A server that owns only its node's ranks counts those from 0 (vLLM, v1/engine/input_processor.py,
    `local_engines_only`); one that owns all, under internal load balancing, counts over the replica.
    """
    if engine.load_balancing == "external":
        return [(0,)] * engine.dp_size_local
    size = engine.dp_size if engine.load_balancing == "internal" else engine.dp_size_local
    return [tuple(range(size))]
