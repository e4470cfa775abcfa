"""Data-parallel flags that contradict each other.

A data-parallel engine is balanced in one of three ways: by itself (internal), a server per node (hybrid), a server per
rank (external). Each has its own flags: `--data-parallel-size-local` with `--data-parallel-start-rank` say which ranks
of all run on this node, `--data-parallel-rank` says which one rank this process is. vLLM checks them against each other
and exits; a start rank without a local size it ignores, and starts every rank here.

Choose one way, and give the flags of that one.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.facts import parallel
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --data-parallel-size 8 --data-parallel-rank 3 --data-parallel-size-local 4
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --data-parallel-size 8 --data-parallel-rank 3 \\
  --data-parallel-size-local 1 --data-parallel-address 10.0.0.1
"""
_SIZE, _LOCAL = "--data-parallel-size", "--data-parallel-size-local"
_RANK, _START = "--data-parallel-rank", "--data-parallel-start-rank"
_HYBRID, _EXTERNAL = "--data-parallel-hybrid-lb", "--data-parallel-external-lb"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for each contradiction between the flags of one engine."""
    for launch in bundle.engines:
        if any(o.name.startswith("--data-parallel") or o.name == "--headless" for o in launch.options):
            yield from _modes(launch)
            yield from _ranks(launch)
            yield from _external(launch)
            yield from _ignored(launch)
            yield from _nowhere(bundle, launch)


def _modes(launch: Launch) -> Iterator[Finding]:
    hybrid, external = launch.given(_HYBRID), launch.given(_EXTERNAL)
    is_hybrid, is_external = (parallel.is_given(launch, name) for name in (_HYBRID, _EXTERNAL))
    if hybrid is not None and is_hybrid and parallel.is_given(launch, "--headless"):
        yield _exits(hybrid, "--data-parallel-hybrid-lb needs an API server, and --headless starts none", "remove one")
    if hybrid is not None and external is not None and is_hybrid and is_external and launch.is_between("0.12.0"):
        yield _exits(
            hybrid, "--data-parallel-hybrid-lb and --data-parallel-external-lb exclude each other", "remove one"
        )
        return
    by_hybrid = hybrid if is_hybrid else launch.given(_START)
    by_external = external if is_external else launch.given(_RANK)
    # entrypoints/cli/serve.py of 0.17.1 and later; the server's own module does not check it
    is_serve = launch.engine == "vllm" and "api_server" not in launch.start.written and launch.is_between("0.17.1")
    if is_serve and by_hybrid is not None and by_external is not None:
        message = f"{by_hybrid.name} means hybrid and {by_external.name} external load balancing: the engine exits"
        yield _exits(by_hybrid, message, "keep the flags of one")


def _ranks(launch: Launch) -> Iterator[Finding]:
    dp, local = launch.dp_size, parallel.local_size(launch)
    rank, start, local_option = launch.given(_RANK), launch.given(_START), launch.given(_LOCAL)
    if rank is not None and local_option is not None and local not in (None, 1):
        message = f"{_LOCAL} {local} with {_RANK}: one rank is one process, and the engine exits"
        yield _exits(local_option, message, f"write {_LOCAL} 1, or give {_START} in the place of {_RANK}")
    for option in (rank, start if local_option is not None and rank is None else None):
        value = launch.value(option.name) if option is not None else None
        if option is not None and dp is not None and isinstance(value, int) and not 0 <= value < dp:
            yield _exits(
                option, f"{option.name} {value} is not in the range [0, {dp})", f"count ranks from 0 to {dp - 1}"
            )
    if local_option is not None and dp is not None and local is not None and local > dp:
        yield _exits(local_option, f"{_LOCAL} {local} is more than {_SIZE} {dp}", f"give {_SIZE} of all nodes together")
    if local_option is not None and local == 0 and parallel.is_given(launch, "--headless"):
        yield _exits(local_option, f"--headless with {_LOCAL} 0 has nothing to run", "remove one")


def _external(launch: Launch) -> Iterator[Finding]:
    option = launch.given(_EXTERNAL)
    if option is None or option.negated or parallel.is_given(launch, _HYBRID):
        return
    if launch.dp_size == 1:
        yield _exits(option, f"{_EXTERNAL} with {_SIZE} 1: the engine exits", f"give {_SIZE}, or remove it")
    elif launch.lacks(_RANK, "--nnodes", "--node-rank"):
        yield _exits(option, f"{_EXTERNAL} without {_RANK}: the engine exits", f"give every process its {_RANK}")


def _ignored(launch: Launch) -> Iterator[Finding]:
    option = launch.given(_START)
    if option is None or parallel.is_completed_by_operator(launch) or parallel.is_given(launch, _HYBRID):
        return
    if launch.lacks(_LOCAL, _RANK, _EXTERNAL, "--nnodes"):
        yield Finding(
            span=option.span,
            message=f"{_START} is ignored without {_LOCAL}: this node starts every rank from 0 on",
            evidence=("vLLM reads the start rank only beside a local size, and does not warn",),
            fix=Fix(f"add {_LOCAL} with the data-parallel ranks of this node"),
            harm=Harm.WASTED,
        )


def _nowhere(bundle: Bundle, launch: Launch) -> Iterator[Finding]:
    """Ranks that no node of the group starts, where every node of it is known to start as many."""
    local, dp, nodes, option = parallel.local_size(launch), launch.dp_size, launch.nodes, launch.given(_LOCAL)
    workload = launch.workload
    if (
        option is None
        or not local
        or dp is None
        or nodes is None
        or nodes < 2
        or parallel.is_completed_by_operator(launch)
    ):
        return
    if workload is not None and (not workload.is_nodes_known or workload.replicas not in (None, 1)):
        return
    group = [other for other in bundle.engines if _is_same_group(launch, other)]
    if 0 < local * nodes < dp and all(parallel.local_size(other) == local for other in group):
        yield Finding(
            span=option.span,
            message=f"{_SIZE} {dp} on {nodes} nodes of {_LOCAL} {local}: {dp - local * nodes} ranks start nowhere",
            evidence=(
                f"{nodes} x {local} = {nodes * local} ranks; the others are waited for until the start times out",
            ),
            fix=Fix(f"give {_SIZE} {nodes * local}, or more ranks on every node"),
        )


def _is_same_group(launch: Launch, other: Launch) -> bool:
    if launch.workload is None or other.workload is None:
        return launch.workload is other.workload and launch.start.source is other.start.source
    return launch.workload.object is other.workload.object


def _exits(option: Argument, message: str, words: str) -> Finding:
    return Finding(
        span=option.span,
        message=message,
        evidence=("vLLM checks it when it makes its configuration (EngineArgs.create_engine_config) and exits",),
        fix=Fix(words),
    )
