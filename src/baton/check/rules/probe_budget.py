"""A probe that restarts an engine while it still loads, or at its first stall.

Until an engine has read its weights, compiled and captured its graphs it answers no probe. A startup probe gives it
initialDelaySeconds + failureThreshold x periodSeconds; without one, the liveness probe counts from the first second.
When the time is up the kubelet kills the container, which starts from the beginning, for ever. A liveness probe with
failureThreshold 1 kills an engine that compiles a kernel for half a minute under load.

Give a startup probe an hour and more (failureThreshold: 360, periodSeconds: 10), and a liveness probe several failures.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts import checkpoints
from baton.check.facts.checkpoints import GB
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.container import child
from baton.check.text import Span
from baton.check.yaml import tree
from baton.check.yaml.tree import Mapping

HARM = Harm.FRAGILE
SEE = ("https://github.com/ai-dynamo/dynamo/issues/14735", "https://github.com/kserve/kserve/issues/5062")
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: engine}
spec:
  containers:
    - name: engine
      image: vllm/vllm-openai:v0.32.0
      args: [--model, /models/qwen]
      livenessProbe:
        httpGet: {path: /health, port: 8000}
        periodSeconds: 10
        failureThreshold: 3
"""
FIRES = _POD
SILENT = f"""\
{_POD}      startupProbe:
        httpGet: {{path: /health, port: 8000}}
        periodSeconds: 10
        failureThreshold: 360
"""
_READ_BYTES_PER_S = 2 * GB
_START_S = 60  # processes, compilation, graphs: less than any engine on GPUs takes
_PERIOD_S, _FAILURES = 10, 3  # what Kubernetes takes where a probe says nothing


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every probe that has too little patience with an engine."""
    seen: set[int] = set()
    for launch in bundle.engines:
        if launch.container is not None and id(launch.container.node) not in seen:
            seen.add(id(launch.container.node))
            yield from _of_launch(
                launch, launch.container.probes.get("startup"), launch.container.probes.get("liveness")
            )


def _of_launch(launch: Launch, startup: Mapping | None, liveness: Mapping | None) -> Iterator[Finding]:
    is_given_one = launch.workload is not None and launch.workload.is_dynamo
    kind, probe = ("startup", startup) if startup is not None else ("liveness", liveness)
    budget = _budget(probe) if probe is not None and (startup is not None or not is_given_one) else None
    if budget is not None and probe is not None:
        needed_s, why = _needed(launch)
        if budget[0] < needed_s:
            yield Finding(
                span=_span(probe, "failureThreshold"),
                message=f"the {kind} probe gives the engine {budget[0]} s to load, and it needs {needed_s} s at least",
                evidence=(budget[1], why),
                fix=Fix("give it a startupProbe with periodSeconds: 10 and failureThreshold: 360"),
            )
    threshold = child(liveness, "failureThreshold")
    if liveness is not None and tree.number(threshold) == 1:
        yield Finding(
            span=_span(liveness, "failureThreshold"),
            message="one failed liveness probe restarts the engine: a kernel compiled under load takes longer",
            evidence=("stalls of 30 to 70 s were seen while kernels are compiled (ai-dynamo/dynamo#14735)",),
            fix=Fix("write failureThreshold: 6 or more"),
        )


def _budget(probe: Mapping) -> tuple[int, str] | None:
    """Seconds until a probe gives up, and the sum; None if not known."""
    delay = _or_default(probe, "initialDelaySeconds", 0)
    period, failures = _or_default(probe, "periodSeconds", _PERIOD_S), _or_default(probe, "failureThreshold", _FAILURES)
    if delay is None or period is None or failures is None:
        return None
    return delay + period * failures, f"{delay} s delay + {failures} failures x {period} s"


def _needed(launch: Launch) -> tuple[int, str]:
    checkpoint = checkpoints.of_launch(launch)
    if checkpoint is None:
        return _START_S, f"{_START_S} s is less than any engine on GPUs takes to load, compile and capture"
    nodes = max(1, launch.nodes or 1)
    reading = checkpoint.num_bytes / nodes / _READ_BYTES_PER_S
    speed = f"{_READ_BYTES_PER_S / GB:.0f} GB/s assumed"
    share = (
        f"{checkpoint.num_bytes / GB:,.0f} GB / {nodes} nodes" if nodes > 1 else f"{checkpoint.num_bytes / GB:,.0f} GB"
    )
    return int(reading) + _START_S, f"{share} of weights at {speed} + {_START_S} s to start and compile"


def _or_default(probe: Mapping, key: str, default: int) -> int | None:
    node = child(probe, key)
    return tree.number(node) if node is not None else default if probe.is_complete else None


def _span(probe: Mapping, key: str) -> Span:
    entry = probe.entries.get(key) or next(iter(probe.entries.values()), None)
    return entry.span if entry is not None else probe.span
