"""How a launch is spread over ranks: sizes multiplied, and who adds the flags that a node of several needs."""

from __future__ import annotations

from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch

LOW_LATENCY, HIGH_THROUGHPUT = "deepep_low_latency", "deepep_high_throughput"
_SIZES = (
    ("DP", "--data-parallel-size"),
    ("TP", "--tensor-parallel-size"),
    ("PP", "--pipeline-parallel-size"),
    ("PCP", "--prefill-context-parallel-size"),
)


def replica_size(launch: Launch) -> int | None:
    """Return the GPUs of one data-parallel rank: tensor x pipeline x prefill-context; None if not known."""
    tp, pp, pcp = launch.tp_size, launch.pp_size, context_size(launch)
    return tp * pp * pcp if tp and pp and pcp else None


def context_size(launch: Launch) -> int | None:
    """Return the prefill-context-parallel size, 1 in releases without it; None if not known."""
    flag = "--prefill-context-parallel-size"
    if launch.flag(flag) is None:
        return 1
    value = launch.value(flag)
    return value if isinstance(value, int) and value > 0 else None


def local_size(launch: Launch) -> int | None:
    """Return --data-parallel-size-local as given; None if it is not, or not known."""
    value = launch.value("--data-parallel-size-local")
    return value if isinstance(value, int) else None


def sum_in_words(launch: Launch) -> str:
    """Return the sizes that are more than one, multiplied: "DP 16 x TP 2"; "one rank" if none is."""
    sizes = [(name, launch.value(flag)) for name, flag in _SIZES if launch.flag(flag) is not None]
    return " x ".join(f"{name} {size}" for name, size in sizes if isinstance(size, int) and size > 1) or "one rank"


def deciding(launch: Launch) -> Argument | None:
    """Return the largest of the sizes that are given; None if none is."""
    given = [(launch.value(flag), option) for _, flag in _SIZES if (option := launch.given(flag)) is not None]
    return max(
        ((size, option) for size, option in given if isinstance(size, int)), key=lambda g: g[0], default=(0, None)
    )[1]


def is_completed_by_operator(launch: Launch) -> bool:
    """Say whether the Dynamo operator may add the data-parallel flags of each node: it does for multinode services."""
    workload = launch.workload
    return workload is not None and workload.is_dynamo and (workload.nodes > 1 or not workload.is_nodes_known)


def is_wide(launch: Launch) -> bool:
    """Say whether experts are spread over several data-parallel ranks for sure, so that all2all kernels run."""
    dp = launch.dp_size
    return launch.is_on("--enable-expert-parallel") is True and dp is not None and dp > 1


def is_given(launch: Launch, name: str) -> bool:
    """Say whether a switch is given and on."""
    option = launch.given(name)
    return option is not None and not option.negated
