"""A graph whose decode workers have no prefill worker beside them.

Decode waits for KV that nobody computes. Up to dynamo 1.2 it computes prompts itself: an aggregated deployment under
another name, with half the GPUs the recipe speaks of. From 1.4.2 on decode needs a live prefill worker before the
frontend shows the model: every pod is green, /v1/models is empty and requests get 503 "Model not ready".

Add the prefill component, or take the role away from decode if one kind of worker is what you want.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.facts.disaggregation import READINESS_BY_ROLE, is_dynamo_between
from baton.check.facts.graphs import Graph, commented_out, graphs
from baton.check.finding import Finding, Fix, Harm
from baton.check.rules import kv_connector

HARM = Harm.NOT_SERVING
SEE = ("https://github.com/ai-dynamo/dynamo/pull/6274",)
SILENT = kv_connector.SILENT
FIRES = SILENT[: SILENT.index("    - name: prefill")] + SILENT[SILENT.index("    - name: decode") :]


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every graph with decode workers and no prefill ones, unless a graph beside it has those."""
    found = graphs(bundle)
    if any(graph.sides == {"prefill"} for graph in found):
        return
    for graph in found:
        if "decode" in graph.sides and "prefill" not in graph.sides and graph.is_complete:
            yield _finding(graph)


def _finding(graph: Graph) -> Finding:
    workload, launch = next((w, e) for w, e in graph.workers if graph.side(w, e) == "decode")
    is_gated = launch is not None and is_dynamo_between(launch, first=READINESS_BY_ROLE)
    is_said = launch is not None and launch.role == "decode"
    result = "decode computes prompts itself, and nothing is disaggregated"
    if is_gated and is_said:
        result = 'pods are green, /v1/models is empty and requests get 503 "Model not ready"'
    comment = commented_out(graph, "prefill")
    return Finding(
        span=launch.start if launch is not None else workload.span,
        message=f"{workload.name} decodes and nothing here prefills: {result}",
        evidence=(f"the components are {', '.join(graph.names)}",),
        fix=Fix("bring the prefill service back" if comment else "add a prefill component, or serve aggregated"),
        also=((comment, "prefill is commented out"),) if comment else (),
        harm=None if comment or is_said else Harm.FRAGILE,
    )
