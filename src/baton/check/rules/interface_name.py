"""A network interface fixed for Gloo and not for NCCL, or written as Gloo does not read it.

Gloo and NCCL choose their interfaces by themselves, each by its own rule. Fixed to `eth0` for one of them, the engine
fails on hosts whose interface has another name (`Unable to find address for: eth0`), and the other library may choose
docker0 or a fabric that the peers cannot reach. NCCL's `^name` (not this one) and `=name` (exactly this one) mean
nothing to Gloo: it looks for an interface of that very name, and stops.

Set both variables to the same name, and only where it must be set; Gloo gets plain names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from baton.check.bundle import Bundle
from baton.check.facts.devices import GPUS
from baton.check.facts.plugins import has_plugin
from baton.check.finding import Finding, Fix, Harm
from baton.check.shell.script import Word

HARM = Harm.FRAGILE
SEE = (
    "https://github.com/aws-samples/aws-do-eks/issues/50",
    "https://github.com/aws-samples/aws-do-eks/issues/51",
    "https://github.com/vllm-project/recipes/issues/458",
)
FIRES = """\
#!/bin/bash
export GLOO_SOCKET_IFNAME=eth0
vllm serve /models/qwen --tensor-parallel-size 2
"""
SILENT = """\
#!/bin/bash
export GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0
vllm serve /models/qwen --tensor-parallel-size 2
"""
_GLOO, _NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine, and every pod with several GPUs, whose two libraries are not told the same."""
    started = set()
    for launch in bundle.engines:
        started.add(id(launch.container.node) if launch.container is not None else None)
        is_wide = _is_wide(launch.tp_size, launch.pp_size, launch.dp_size, launch.nodes)
        yield from _findings(launch.env, is_wide and launch.is_env_complete and not has_plugin(launch))
    for workload in bundle.manifests.workloads:
        main = workload.pod.main
        if main is not None and id(main.node) not in started:
            env = {name: variable.word for name, variable in main.env.items()}
            is_wide = _is_wide(workload.nodes, *(workload.resource(name) for name in GPUS))
            yield from _findings(env, is_wide and main.is_env_complete)


def _findings(env: Mapping[str, Word], is_wide: bool) -> Iterator[Finding]:
    gloo = env.get(_GLOO)
    if gloo is None or not gloo.is_known or not gloo.value.strip("xX"):
        return
    if gloo.value.startswith(("^", "=")):
        yield Finding(
            span=gloo.span,
            message=f"{_GLOO} is {gloo.value!r}: Gloo looks for an interface of that very name, and stops",
            evidence=("^ and = before a name are NCCL's; Gloo takes plain names, with commas between",),
            fix=Fix("write the interface's plain name, or leave the variable out"),
            harm=Harm.NOT_STARTING,
        )
    elif is_wide and _NCCL not in env and gloo.value != "lo":
        yield Finding(
            span=gloo.span,
            message=f"{_GLOO} is fixed to {gloo.value!r} and {_NCCL} is not set: the two may take different networks",
            evidence=(f"where no interface is called {gloo.value}, Gloo stops; NCCL chooses one by itself",),
            fix=Fix(f"set {_NCCL} to the same, or leave {_GLOO} out"),
        )


def _is_wide(*sizes: int | None) -> bool:
    """Whether there is more than one process, and they must find each other."""
    return any(size is not None and size > 1 for size in sizes)
