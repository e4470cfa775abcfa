"""Ranks on several nodes that look for their leader on 127.0.0.1.

Where `--data-parallel-size-local` is less than `--data-parallel-size`, the other ranks run elsewhere and must find the
first one. Without `--data-parallel-address` (or `--master-addr`) every node looks at itself, waits for the others until
the handshake gives up after minutes, and restarts for ever. The Dynamo operator adds the address to multinode services.

Give every node the address of the node that has rank 0, such as LeaderWorkerSet's `$(LWS_LEADER_ADDRESS)`.
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
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
srun --container-image=vllm/vllm-openai:v0.32.0 bash -c 'vllm serve m --data-parallel-size 16 \\
  --data-parallel-size-local 8 --data-parallel-start-rank $((SLURM_NODEID * 8)) --data-parallel-hybrid-lb'
"""
SILENT = """\
#!/bin/bash
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
srun --container-image=vllm/vllm-openai:v0.32.0 bash -c 'vllm serve m --data-parallel-size 16 \\
  --data-parallel-size-local 8 --data-parallel-start-rank $((SLURM_NODEID * 8)) --data-parallel-hybrid-lb \\
  --data-parallel-address "$HEAD"'
"""
_ADDRESS = "--data-parallel-address"
_HERE = ("127.0.0.1", "localhost", "::1")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every node of several that is told no address, or its own."""
    for launch in bundle.engines:
        local, dp, option = launch.given("--data-parallel-size-local"), launch.dp_size, launch.given(_ADDRESS)
        size = parallel.local_size(launch)
        is_part = local is not None and size is not None and dp is not None and 0 < size < dp
        if local is None or not is_part or not _has_others_elsewhere(launch):
            continue
        given = option.value.value if option is not None and option.value is not None else None
        is_absent = launch.lacks(_ADDRESS, "--master-addr", "--data-parallel-backend", "--nnodes")
        if is_absent or given in _HERE:
            said = f"{_ADDRESS} {given}" if given is not None else f"no {_ADDRESS}"
            yield Finding(
                span=option.span if option is not None else local.span,
                message=f"{said}: {size} of {dp} ranks are here, and the others are waited for on 127.0.0.1",
                evidence=("the default of --data-parallel-address is 127.0.0.1", f"{launch.nodes} nodes, each its own"),
                fix=Fix(f"give every node {_ADDRESS} with the address of the node that has rank 0"),
            )


def _has_others_elsewhere(launch: Launch) -> bool:
    """Whether other nodes are known to take part; a script alone may start all ranks on one machine."""
    return launch.nodes is not None and launch.nodes > 1 and not parallel.is_completed_by_operator(launch)
