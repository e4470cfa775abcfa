"""Everything we render holds against the real schemas: of several Kubernetes releases, and of each custom kind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from support import crds
from support import kubernetes as built_in
from support.objects import Object, documents, objects, pod_templates
from support.renders import CLUSTER_TARGETS, CUSTOM, PUBLISHED, faults, published, unlisted

LWS = "LeaderWorkerSet"


@pytest.mark.parametrize("target", CLUSTER_TARGETS)
@pytest.mark.parametrize("stem", PUBLISHED)
def test_a_render_is_valid(stem: str, target: str) -> None:
    files = published(stem, target)
    assert not faults(files)
    assert not unlisted(files)


def test_the_custom_kinds_are_those_whose_schemas_there_are() -> None:
    """A kind that we render and nobody validates would be here."""
    assert crds.kinds() >= CUSTOM


def test_every_kind_we_render_is_known_and_all_of_the_custom_ones_are_rendered() -> None:
    rendered = {
        (each["apiVersion"], each["kind"])
        for stem in PUBLISHED
        for target in CLUSTER_TARGETS
        for each in objects(published(stem, target))
    }
    assert rendered >= CUSTOM
    assert {each for each in rendered if "." in each[0] and not each[0].split("/")[0].endswith(".k8s.io")} == CUSTOM


def one(kind: str, target: str = "kubernetes", stem: str = "deepseek-r1-gb200-16gpu") -> Object:
    """A rendered object, to break."""
    return copy.deepcopy(next(each for each in objects(published(stem, target)) if each["kind"] == kind))


def set_at(each: Object, path: str, value: Any) -> Object:
    """The object with one field set."""
    *folders, name = path.split(".")
    node: Any = each
    for folder in folders:
        node = node[int(folder)] if isinstance(node, list) else node[folder]
    node[name] = value
    return each


@pytest.mark.parametrize(
    ("kind", "path", "value", "said"),
    [
        ("Deployment", "spec.replica", 2, "'replica' was unexpected"),
        ("Deployment", "spec.replicas", "2", "is not of type 'integer'"),
        ("Service", "spec.ports.0.port", "8000", "is not of type 'integer'"),
        ("PodDisruptionBudget", "spec.minAvailble", 1, "was unexpected"),
        ("ConfigMap", "data.x", 1, "is not of type 'string'"),
        ("Deployment", "apiVersion", "apps/v1beta9", "no such kind"),
        ("Deployment", "kind", "Deploymint", "no such kind"),
        ("Deployment", "apiVersion", "apps.example.com/v1", "no such kind"),
        ("Deployment", "spec.template.spec.nodeName", None, ".spec.template.spec.nodeName: null"),
    ],
)
def test_a_fault_in_a_built_in_object_is_found(kind: str, path: str, value: Any, said: str) -> None:
    broken = set_at(one(kind), path, value)
    for release in built_in.RELEASES:
        assert any(said in fault for fault in built_in.faults(broken, release)), release


@pytest.mark.parametrize(
    ("kind", "target", "path", "value", "said"),
    [
        (LWS, "kubernetes", "spec.leaderWorkerTemplate.sizes", 2, ".spec.leaderWorkerTemplate.sizes: unknown field"),
        (LWS, "kubernetes", "spec.replicas", "1", "$.spec.replicas: '1' is not of type 'integer'"),
        (LWS, "kubernetes", "spec.startupPolicy", "Whenever", "is not one of ['LeaderCreated', 'LeaderReady']"),
        (LWS, "kubernetes", "apiVersion", "leaderworkerset.x-k8s.io/v2", "no CustomResourceDefinition has such a kind"),
        ("ComputeDomain", "kubernetes", "spec.numNodes", -1, "less than the minimum"),
        ("ComputeDomain", "kubernetes", "spec.channel.name", "x", ".spec.channel.name: unknown field"),
        ("PodMonitor", "kubernetes", "spec.podMetricsEndpoints.0.interval", "soon", "does not match"),
        ("PodMonitor", "kubernetes", "spec.selector", "all", "is not of type 'object'"),
        ("DynamoGraphDeployment", "dynamo", "spec.services.frontend.replica", 1, "unknown field"),
        ("DynamoGraphDeployment", "dynamo-v1beta1", "spec.components.0.type", "router", "is not one of"),
        ("DynamoGraphDeployment", "dynamo-v1beta1", "spec.components.1.name", "frontend", "is there twice"),
    ],
)
def test_a_fault_in_a_custom_resource_is_found(kind: str, target: str, path: str, value: Any, said: str) -> None:
    broken = set_at(one(kind, target), path, value)
    assert any(said in fault for fault in crds.faults(broken)), crds.faults(broken)


def test_a_pod_template_in_a_group_is_held_against_the_schema_of_pods() -> None:
    """The definition of LeaderWorkerSet is not as strict about pods as Kubernetes is."""
    (template,) = pod_templates(one(LWS))[:1]
    template["template"]["spec"]["containers"][0]["command"] = "vllm serve"
    assert any("is not of type 'array'" in fault for fault in built_in.faults(template, built_in.RELEASES[-1]))


def test_readers_that_differ_about_a_text_are_found() -> None:
    for text in ("a: yes", "a: 0o17", "a: 017", "a: 1e3", "a: 12:30:45"):
        with pytest.raises(AssertionError, match=r"YAML 1\.1 and 1\.2"):
            documents(text)
    assert documents('a: "yes"\n---\nb: 1') == [{"a": "yes"}, {"b": 1}]
