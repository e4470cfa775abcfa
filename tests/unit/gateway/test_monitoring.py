"""deploy/monitoring: what its alerts and panels ask for is there, under that name and with those labels."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from baton.engine import metrics as engine_metrics
from baton.gateway.ledger import Ledger
from baton.gateway.metrics import GatewayMetrics, RankRequests

MONITORING = Path(__file__).parents[3] / "deploy" / "monitoring"
TARGET = {"job", "instance", "namespace", "pod"}
"""What Prometheus itself adds to every series."""

ENGINE = {"engine", "model_name", *TARGET}
ENGINE_NAMES = {
    *engine_metrics._NIXL.values(),
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
}
"""What baton itself reads off vLLM; the contract suite holds it against real engines."""


def exposed() -> dict[str, dict[str, set[str]]]:
    """Every series of a gateway in which everything has happened once: values by label by name of the sample."""
    metrics = GatewayMetrics()
    metrics.requests.of("/v1/completions", "200")
    for outcome in ("completed", "failed", "cancelled", "shed"):
        metrics.generations.of(outcome)
    metrics.decode_alone.of("echo")
    metrics.sheds.of("rate", "batch")
    metrics.queue_seconds.of("batch")
    ledger = Ledger(1.0)
    ledger.first_byte = 2.0
    metrics.first_byte(ledger)
    metrics.scraped(
        num_pairs=1,
        num_verified_pairs=1,
        rank_requests=[RankRequests("p0", 0, "prefill", 1)],
        queue_lengths={"batch": 1},
        num_prefix_blocks=1,
        num_access_log_lines_lost=0,
    )
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        assert family.samples, f"{family.name} has no series here: let this function make one"
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


EXPOSED = exposed()


def rules() -> list[dict[str, Any]]:
    return [
        rule for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
    ]


def board() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((MONITORING / "baton-gateway.json").read_text())
    return read


def panels() -> list[dict[str, Any]]:
    return [panel for panel in board()["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Every PromQL expression there is, with where it stands; Grafana's variables have values."""
    found = [(rule["alert"], rule["expr"]) for rule in rules()]
    found += [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    return [(where, expr.replace("$__rate_interval", "5m")) for where, expr in found]


def nodes(expr: str) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expr), found.append)
    return found


def selectors(expr: str) -> Iterator[promql_parser.VectorSelector]:
    return (node for node in nodes(expr) if isinstance(node, promql_parser.VectorSelector))


def labels_of(name: str) -> set[str]:
    """The labels that a series of this name can have; fails for one that nobody has."""
    if name in ENGINE_NAMES:
        return ENGINE
    assert name in EXPOSED, f"nobody has {name}"
    return EXPOSED[name].keys() | TARGET


def grouped(node: Any) -> list[str]:
    return node.modifier.labels if isinstance(node, promql_parser.AggregateExpr) and node.modifier else []


@pytest.mark.parametrize(("where", "expr"), queries())
def test_a_query_asks_for_what_there_is(where: str, expr: str) -> None:
    asked = list(selectors(expr))
    assert asked
    for selector in asked:
        labels = labels_of(selector.name)
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels, f"{selector.name} has no label {matcher.name}"
    for node in nodes(expr):
        for selector in selectors(node.prettify()) if grouped(node) else ():
            assert set(grouped(node)) <= labels_of(selector.name), f"{node.prettify()}: {selector.name}"


@pytest.mark.parametrize(("where", "expr"), queries())
def test_a_value_that_is_matched_is_one_that_occurs(where: str, expr: str) -> None:
    for selector in selectors(expr):
        for matcher in selector.matchers.matchers:
            if matcher.name in ("result", "outcome", "part", "source", "leg"):
                assert matcher.value in EXPOSED[selector.name][matcher.name]


@pytest.mark.parametrize(("where", "expr"), queries())
def test_a_counter_is_asked_for_its_rate_and_a_gauge_is_not(where: str, expr: str) -> None:
    rated = {
        selector.name
        for node in nodes(expr)
        if isinstance(node, promql_parser.Call) and node.func.name in ("rate", "increase")
        for selector in selectors(node.prettify())
    }
    for selector in selectors(expr):
        counts = selector.name.endswith(("_total", "_bucket", "_sum", "_count"))
        assert (selector.name in rated) == counts, selector.name


@pytest.mark.parametrize(
    "faulty", ["rate(baton_requets_total[5m])", "baton_pairs{kind='x'}", "sum by (leg) (baton_pairs)"]
)
def test_these_tests_see_a_wrong_name_and_a_wrong_label(faulty: str) -> None:
    with pytest.raises(AssertionError):
        test_a_query_asks_for_what_there_is("", faulty)


def test_everything_that_the_gateway_counts_is_shown_or_watched() -> None:
    asked = {selector.name for _, expr in queries() for selector in selectors(expr)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in EXPOSED if name.startswith("baton_")}
    assert {family for family in families if not any(name.startswith(family) for name in asked)} == set()


def test_an_alert_says_what_it_means_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert len(rule["annotations"]["runbook"]) > 80
        assert re.fullmatch(r"\d+[ms]", rule.get("for", "0s"))


def test_an_alerts_text_names_only_labels_that_its_query_keeps() -> None:
    for rule in rules():
        [*aggregates] = [
            set(grouped(node)) for node in nodes(rule["expr"]) if isinstance(node, promql_parser.AggregateExpr)
        ]
        kept = aggregates[0] if aggregates else TARGET
        named = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
        assert named <= kept, rule["alert"]


def test_a_runbook_names_alerts_and_panels_that_exist() -> None:
    names, titles = {rule["alert"] for rule in rules()}, {panel["title"] for panel in panels()}
    for rule in rules():
        text = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\bBaton[A-Z]\w+", text)) <= names
        assert set(re.findall(r'panel "([^"]+)"', text)) <= titles


def test_a_legend_names_only_labels_that_its_query_keeps() -> None:
    for panel in panels():
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "5m")
            aggregates = [set(grouped(node)) for node in nodes(expr) if isinstance(node, promql_parser.AggregateExpr)]
            kept = aggregates[0] if aggregates else TARGET
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept, target["expr"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in board()["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in board()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_a_board_runs_on_any_prometheus_and_its_variables_are_there() -> None:
    known = {variable["name"] for variable in board()["templating"]["list"]}
    text = (MONITORING / "baton-gateway.json").read_text()
    assert set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval", "__all"} <= known
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}
    for variable in board()["templating"]["list"]:
        for name, label in re.findall(r"label_values\(([\w:]+), (\w+)\)", str(variable.get("query"))):
            assert label in labels_of(name)
