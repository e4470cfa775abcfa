"""A graph whose prefill workers have no decode worker beside them.

Prefill computes the first token and hands KV over; nobody takes it. Up to dynamo 1.2 any worker without a role decodes;
from 1.4.2 on only one that says --disaggregation-mode decode does, and until it is there the frontend shows no model:
every pod is green, /v1/models is empty and requests get 503 "Model not ready".

Add the decode component, or give the worker that is meant its role.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.facts.disaggregation import READINESS_BY_ROLE, is_dynamo_between
from baton.check.facts.graphs import Graph, commented_out, graphs
from baton.check.finding import Finding, Fix, Harm
from baton.check.rules import kv_connector

HARM = Harm.NOT_SERVING
SEE = ("https://github.com/ai-dynamo/dynamo/pull/13046",)
SILENT = kv_connector.SILENT
FIRES = SILENT[: SILENT.index("    - name: decode")]


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every graph with prefill workers that nothing decodes for."""
    found = graphs(bundle)
    if any(graph.sides == {"decode"} for graph in found):
        return
    for graph in found:
        if "prefill" in graph.sides and "decode" not in graph.sides and graph.is_complete:
            yield from _findings(graph)


def _findings(graph: Graph) -> Iterator[Finding]:
    workload, launch = next((w, e) for w, e in graph.workers if graph.side(w, e) == "prefill")
    others = [e for w, e in graph.workers if graph.side(w, e) is None]
    if not all(e is not None and is_dynamo_between(e, first=READINESS_BY_ROLE) for e in others):
        return
    comment = commented_out(graph, "decode")
    yield Finding(
        span=launch.start if launch is not None else workload.span,
        message=f"{workload.name} prefills and nothing here decodes for it: pods are green, "
        'and requests get 503 "Model not ready"',
        evidence=(f"the components are {', '.join(graph.names)}",),
        fix=Fix("add --disaggregation-mode decode to the other worker" if others else "add a decode component"),
        also=((comment, "decode is commented out"),) if comment else (),
    )
