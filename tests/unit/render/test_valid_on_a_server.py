"""A real API server takes everything we render, in a dry run, and refuses what schemas let pass.

It is Kubernetes 1.20, so newer kinds are named here; they are held against schemas alone (test_valid_schemas).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from support.apiserver import ApiServer
from support.objects import Object, objects, pod_templates
from support.renders import CLUSTER_TARGETS, PUBLISHED, published

NOT_SERVED = {("policy/v1", "PodDisruptionBudget")}
"""kinds that we render and Kubernetes 1.20 does not have"""
_ALPHA = "nvidia.com/v1alpha1 DynamoGraphDeployment"
SAID = {"dynamo": f"Warning: {_ALPHA} is deprecated; use {_ALPHA.replace('alpha', 'beta')}\n"}
"""what the server says of objects that it takes"""
NAMESPACE = "dynamo-system"


@pytest.fixture(scope="module")
def server(api_server: ApiServer) -> ApiServer:
    """The server with the namespace of our recipes in it: a dry run makes none."""
    api_server.namespace(NAMESPACE)
    return api_server


def names(found: list[Object]) -> set[tuple[str, str]]:
    return {(each["kind"], each["metadata"]["name"]) for each in found}


@pytest.mark.parametrize("target", CLUSTER_TARGETS)
def test_every_object_is_accepted(server: ApiServer, target: str) -> None:
    """The pods inside of custom resources too: a definition's schema does not know what a pod may be."""
    for stem in PUBLISHED:
        found = [each for each in objects(published(stem, target)) if kind_of(each) not in NOT_SERVED]
        found += [template for each in found for template in pod_templates(each)]
        answer = server.dry_run(found)
        assert answer.errors == SAID.get(target, ""), stem
        assert answer.names == names(found), stem


def test_the_kinds_that_are_not_served_are_those_named_here(server: ApiServer) -> None:
    """One that is served, or no longer rendered, would have no excuse."""
    rendered = [each for stem in PUBLISHED for target in CLUSTER_TARGETS for each in objects(published(stem, target))]
    for kind in {kind_of(each) for each in rendered}:
        example = next(each for each in rendered if kind_of(each) == kind)
        is_unknown = "no matches for kind" in server.dry_run([example]).errors
        assert is_unknown == (kind in NOT_SERVED), kind
    assert {kind_of(each) for each in rendered} >= NOT_SERVED


def kind_of(each: Object) -> tuple[str, str]:
    return each["apiVersion"], each["kind"]


def renamed(each: Object) -> None:
    each["metadata"]["name"] = "Frontend_1"


def without_selected_labels(each: Object) -> None:
    each["spec"]["template"]["metadata"]["labels"] = {"app": "other"}


def without_volumes(each: Object) -> None:
    each["template"]["spec"]["volumes"] = []


def without_restart_policy(each: Object) -> None:
    del each["spec"]["template"]["spec"]["restartPolicy"]


def with_a_port_too_high(each: Object) -> None:
    each["spec"]["ports"][0]["port"] = 99999


def with_a_quantity_that_is_none(each: Object) -> None:
    each["spec"]["resources"]["requests"]["storage"] = "10XX"


def with_a_device_asked_for_and_not_limited(each: Object) -> None:
    each["template"]["spec"]["containers"][0]["resources"] = {"requests": {"nvidia.com/gpu": "8"}}


def on_no_startup(each: Object) -> None:
    each["spec"]["startupPolicy"] = "Whenever"


def in_no_namespace(each: Object) -> None:
    each["metadata"]["namespace"] = "elsewhere"


@pytest.mark.parametrize(
    ("kind", "break_it", "said"),
    [
        ("Deployment", renamed, 'Invalid value: "Frontend_1"'),
        ("Deployment", without_selected_labels, "`selector` does not match template `labels`"),
        ("PodTemplate", without_volumes, "volumeMounts[0].name: Not found"),
        ("Job", without_restart_policy, "restartPolicy"),
        ("Service", with_a_port_too_high, "must be between 1 and 65535"),
        ("PersistentVolumeClaim", with_a_quantity_that_is_none, "quantities must match"),
        ("PodTemplate", with_a_device_asked_for_and_not_limited, "Limit must be set for non overcommitable resources"),
        ("LeaderWorkerSet", on_no_startup, "spec.startupPolicy: Unsupported value"),
        ("ConfigMap", in_no_namespace, 'namespaces "elsewhere" not found'),
    ],
)
def test_a_broken_object_is_refused(server: ApiServer, kind: str, break_it: Callable[[Any], None], said: str) -> None:
    found = objects(published("deepseek-r1-hopper-32gpu", "kubernetes"))
    found += [template for each in found for template in pod_templates(each)]
    broken = copy.deepcopy(next(each for each in found if each["kind"] == kind))
    break_it(broken)
    answer = server.dry_run([broken])
    assert said in answer.errors
    assert not answer.accepted
