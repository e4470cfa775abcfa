"""Hybrid load balancing without the number of ranks on this node.

`--data-parallel-hybrid-lb` gives every node an API server of its own for the data-parallel ranks that run there, so the
engine must know how many those are. Without `--data-parallel-size-local` it exits before it loads anything, in every
release. The Dynamo operator adds the flag to the nodes of a multinode service, which is why recipes get by without it
there, and fail when they are started by hand or as a plain pod.

Give every node `--data-parallel-size-local`: its GPUs divided by tensor x pipeline parallel size.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts import parallel
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --data-parallel-size 16 --data-parallel-hybrid-lb --enable-expert-parallel
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --data-parallel-size 16 --data-parallel-hybrid-lb \\
  --data-parallel-size-local 8 --data-parallel-address 10.0.0.1 --enable-expert-parallel
"""
_INSTEAD = ("--data-parallel-size-local", "--data-parallel-rank", "--data-parallel-external-lb", "--nnodes")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine that asks for the mode and says nothing of its own ranks."""
    for launch in bundle.engines:
        option = launch.given("--data-parallel-hybrid-lb")
        if option is None or option.negated or parallel.is_completed_by_operator(launch):
            continue
        if launch.lacks(*_INSTEAD):
            yield Finding(
                span=option.written.span,
                message="--data-parallel-hybrid-lb without --data-parallel-size-local: the engine exits at once",
                evidence=(
                    "every vLLM checks it when it reads its arguments: data_parallel_size_local must be set",
                    "only the Dynamo operator adds it, and only to services with multinode",
                ),
                fix=Fix(f"add --data-parallel-size-local {_local(launch)} on this node"),
            )


def _local(launch: Launch) -> str:
    size, gpus, dp, nodes = parallel.replica_size(launch), launch.gpus_per_node, launch.dp_size, launch.nodes
    if size and gpus and gpus >= size:
        return str(gpus // size)
    if dp and nodes and nodes > 1 and dp % nodes == 0:
        return str(dp // nodes)
    return "with the number of data-parallel ranks"
