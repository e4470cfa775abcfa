"""A Dynamo front door that hands requests out in turn, over workers that keep prefixes.

Unless told otherwise dynamo.frontend routes round-robin. With several workers, or data-parallel ranks, a request that
repeats a long prompt mostly lands where its prefix is not cached, and is computed again: with 8 ranks 7 times of 8.
Load is not looked at either.

Set DYN_ROUTER_MODE=kv, or --router-mode kv, on the frontend; from dynamo 1.2 on the workers need --kv-events-config for
it. Write --router-mode round-robin if that is what you want.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts.graphs import Graph, graphs
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.manifests import Workload

HARM = Harm.WASTED
SEE = ("https://github.com/vllm-project/vllm/issues/39749",)
_GRAPH = """\
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeployment
metadata: {name: two}
spec:
  components:
    - name: frontend
      type: frontend
      podTemplate:
        spec:
          containers:
            - name: main
              image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1%s
    - name: worker
      type: worker
      replicas: 2
      podTemplate:
        spec:
          containers:
            - name: main
              image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1
              command: [python3, -m, dynamo.vllm]
              args:
                - --model=/models/qwen
                - '--kv-events-config={"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:20080"}'
"""
FIRES = _GRAPH % ""
SILENT = _GRAPH % "\n              env: [{name: DYN_ROUTER_MODE, value: kv}]"
_FLAG, _VARIABLE = "--router-mode", "DYN_ROUTER_MODE"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every front door without a router mode, and for those told two."""
    for graph in graphs(bundle):
        choice = _most_choices(graph)
        for door in graph.doors:
            is_front = door.workload is not None and door.workload.component == "frontend"
            if is_front and not graph.has_picker and choice is not None and door.lacks(_FLAG):
                yield _finding(door, *choice)
            yield from _twice(door)


def _finding(door: Launch, workload: Workload, count: str) -> Finding:
    return Finding(
        span=door.start,
        message=f"requests go round-robin over {count} of {workload.name}, so a prompt seldom meets its cached prefix",
        evidence=(f"neither {_FLAG} nor {_VARIABLE} is set, and round-robin is the default of every release",),
        fix=Fix(f"set {_VARIABLE}=kv on the frontend, and --kv-events-config on the workers from dynamo 1.2 on"),
        also=((workload.span, count),),
    )


def _most_choices(graph: Graph) -> tuple[Workload, str] | None:
    """The first worker that a router has a choice about, and of how many; None if there is none."""
    for workload, engine in graph.workers:
        ranks = engine.dp_size if engine is not None else None
        if workload.replicas is not None and workload.replicas > 1:
            return workload, f"{workload.replicas} replicas"
        if ranks is not None and ranks > 1:
            return workload, f"{ranks} data-parallel ranks"
        if engine is None and _has_ranks(workload):
            return workload, "the data-parallel ranks"
    return None


def _has_ranks(workload: Workload) -> bool:
    """Whether a command line that starts no engine, as it stands, speaks of data-parallel ranks."""
    main = workload.pod.main
    return main is not None and any(word.value == "--data-parallel-size" for word in main.args or ())


def _twice(door: Launch) -> Iterator[Finding]:
    flag, variable = door.given(_FLAG), door.env.get(_VARIABLE)
    value = flag.value if flag is not None else None
    if flag is None or value is None or variable is None or not variable.is_known or variable.value == value.value:
        return
    yield Finding(
        span=variable.span,
        message=f"{_VARIABLE} is {variable.value!r} and {_FLAG} {value.value!r}: the flag counts, this does nothing",
        evidence=("the variable is the flag's default",),
        fix=Fix("remove one of the two"),
        also=((flag.span, "the flag"),),
    )
