"""A probe that waits longer than its period.

The kubelet asks one probe of a container at a time and starts the next when the last has answered or timed out. While
an endpoint hangs, periodSeconds does nothing: a timeout of 1800 s and 60 failures make 30 hours until anybody acts.

Let a probe wait for less than its period; make the failureThreshold larger where the start takes long.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.edits import fixes
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.container import child
from baton.check.yaml import tree
from baton.check.yaml.tree import Mapping

HARM = Harm.FRAGILE
SEE = ()
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: front}
spec:
  containers:
    - name: front
      image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1
      command: [python3, -m, dynamo.frontend, --router-mode, kv]
      startupProbe:
        httpGet: {path: /health, port: 8000}
        periodSeconds: 10
        timeoutSeconds: %s
        failureThreshold: 60
"""
FIRES = _POD % "1800"
SILENT = _POD % "5"
_PERIOD_S, _FAILURES = 10, 3  # what Kubernetes takes where a probe says nothing
_LATE_S = 1800  # until then nobody calls it late: weights take as long to load


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every probe whose timeout is longer than its period."""
    for workload in bundle.manifests.workloads:
        for container in workload.pod.containers:
            for kind, probe in container.probes.items():
                yield from _findings(kind, probe)


def _findings(kind: str, probe: Mapping) -> Iterator[Finding]:
    written = tree.scalar(child(probe, "timeoutSeconds"))
    timeout_s, period_s = tree.number(written), _or_default(probe, "periodSeconds", _PERIOD_S)
    failures = _or_default(probe, "failureThreshold", _FAILURES)
    if written is None or timeout_s is None or period_s is None or timeout_s <= period_s:
        return
    if failures is not None and failures * timeout_s < _LATE_S:
        return
    evidence = ["the kubelet starts the next probe when the last has answered or timed out"]
    if failures is not None:
        hours = failures * timeout_s / 3600
        evidence.append(f"{failures} failures x {timeout_s} s = {hours:,.1f} h until a hanging {kind} probe fails")
    yield Finding(
        span=written.span,
        message=f"the {kind} probe waits {timeout_s} s but is asked every {period_s} s: a hang is noticed late",
        evidence=tuple(evidence),
        fix=Fix(f"write timeoutSeconds: {period_s} or less", fixes.replace_text(written.text, str(period_s))),
    )


def _or_default(probe: Mapping, key: str, default: int) -> int | None:
    node = child(probe, key)
    return tree.number(node) if node is not None else default if probe.is_complete else None
