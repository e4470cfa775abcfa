"""The dynamo targets: what is written, and what the operator and the kubelet make of it."""

import copy
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import crds, kubelet
from support.graphs import (
    GB200,
    HOPPER,
    OURS,
    SMALL_PREFILL,
    VERSIONS,
    Object,
    component,
    deployment,
    env,
    files,
    graph,
    main,
    objects,
    pod,
    value,
    words,
)

from baton.base.errors import ConfigError
from baton.catalogue.engine import versions
from baton.check.bundle import read_bundle
from baton.check.finding import Harm
from baton.check.run import check, harm_of
from baton.render import compute_domain, dynamo, model_cache, probes
from baton.render.documents import MARK

RELEASES = versions("dynamo.vllm")
GROVE = {"GROVE_PCSG_NAME": "g", "GROVE_PCSG_INDEX": "0", "GROVE_HEADLESS_SERVICE": "s", "GROVE_PCLQ_POD_INDEX": "0"}
LEADER = "$(GROVE_PCSG_NAME)-$(GROVE_PCSG_INDEX)-decode-ldr-0.$(GROVE_HEADLESS_SERVICE)"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("stem", OURS)
def test_our_own_checker_finds_nothing(stem: str, version: dynamo.ApiVersion, tmp_path: Path) -> None:
    assert harms(files(stem, version), tmp_path) == []


@pytest.mark.parametrize("release", RELEASES)
def test_nor_for_any_other_release(release: str, tmp_path: Path) -> None:
    assert harms(files(HOPPER, "v1alpha1", f"cluster.dynamo.version={release}"), tmp_path) == []


def harms(rendered: dict[str, str], folder: Path) -> list[tuple[str, str]]:
    for name, text in rendered.items():
        (folder / name).write_text(text)
    report = check(read_bundle(sorted(folder.glob("*.yaml"))))
    assert len(report.bundle.engines) == 2
    return [(found.code, found.message) for found in report.findings if harm_of(found) is not Harm.UNKNOWN]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("stem", OURS)
def test_every_field_is_one_of_the_real_definition(stem: str, version: dynamo.ApiVersion) -> None:
    custom = [
        each for each in objects(files(stem, version)) if each["kind"] in ("DynamoGraphDeployment", "ComputeDomain")
    ]
    assert custom
    for each in custom:
        assert crds.faults(each) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_fields_that_only_some_recipes_have_are_real_too(version: dynamo.ApiVersion) -> None:
    of = graph(
        GB200,
        version,
        "cluster.image_pull_secrets=[nvcr]",
        "cluster.node_selector={pool: gpu}",
        "cluster.dynamo.image=mirror/own:latest",
        "cluster.rdma_resource=rdma/ib",
        "cluster.rdma_devices_per_node=4",
        "cluster.model_cache.claim=weights",
    )
    assert crds.faults(of) == []
    assert pod(of, "prefill")["imagePullSecrets"] == pod(of, "frontend")["imagePullSecrets"] == [{"name": "nvcr"}]
    assert pod(of, "prefill")["nodeSelector"] == {"pool": "gpu"}
    assert "nodeSelector" not in pod(of, "frontend")
    assert pod(of, "frontend")["tolerations"] == pod(of, "decode")["tolerations"]
    assert component(of, "decode")["runtimeVersionOverride"] == "1.6.1"


def test_the_same_recipe_gives_the_same_bytes_headed_by_its_hash() -> None:
    for version in VERSIONS:
        first = files(GB200, version)
        assert list(first.items()) == list(dynamo.files(deployment(GB200), version).items())
        for text in first.values():
            assert text.startswith(f"{MARK}vllm-dsr1-gb200, sha256 {deployment(GB200).recipe_digest}")


def test_the_kustomization_lists_every_file_namespace_first() -> None:
    rendered = files(GB200, "v1beta1")
    listed = yaml.safe_load(rendered["kustomization.yaml"])["resources"]
    assert sorted([*listed, "kustomization.yaml"]) == sorted(rendered)
    assert listed[0] == "namespace.yaml"
    assert "compute-domain.yaml" in listed
    assert "compute-domain.yaml" not in files(HOPPER, "v1beta1")


def test_what_outlives_the_deployment_is_labelled_so() -> None:
    lasting = {
        each["kind"]
        for each in objects(files(HOPPER, "v1beta1"))
        if each["metadata"]["labels"].get("app.kubernetes.io/component") == model_cache.STORAGE
    }
    assert lasting == {"Namespace", "PersistentVolumeClaim"}


def test_the_two_versions_say_the_same() -> None:
    for stem in OURS:
        old, new = graph(stem, "v1alpha1"), graph(stem, "v1beta1")
        for name in ("frontend", "prefill", "decode"):
            assert words(old, name) == words(new, name)
            assert component(old, name)["replicas"] == component(new, name)["replicas"]
            assert component(old, name).get("multinode") == component(new, name).get("multinode")
            assert kind(component(old, name)) == component(new, name)["type"]
        for name in ("prefill", "decode"):
            assert env(old, name) == env(new, name)
            for probe in ("startupProbe", "livenessProbe"):
                assert main(old, name)[probe] == main(new, name)[probe]
            assert component(old, name)["sharedMemory"]["size"] == component(new, name)["sharedMemorySize"]
            assert amounts(old, name) == main(new, name)["resources"]["limits"]


def kind(service: Object) -> str:
    return str(service.get("subComponentType", service["componentType"]))


def amounts(of: Object, name: str) -> Object:
    limits = main(of, name)["resources"]["limits"]
    return {"nvidia.com/gpu": limits["gpu"], **limits.get("custom", {})}


def test_gpus_are_the_recipes_in_sum() -> None:
    for stem, total in ((HOPPER, 32), (GB200, 16), (SMALL_PREFILL, 16)):
        of = graph(stem, "v1alpha1")
        found = 0
        for name in ("prefill", "decode"):
            each = component(of, name)
            nodes = each.get("multinode", {}).get("nodeCount", 1)
            found += each["replicas"] * nodes * int(each["resources"]["limits"]["gpu"])
        assert found == total


@pytest.mark.parametrize("version", VERSIONS)
def test_nodes_are_written_only_where_there_are_several(version: dynamo.ApiVersion) -> None:
    of = graph(SMALL_PREFILL, version)
    assert "multinode" not in component(of, "prefill")
    assert component(of, "decode")["multinode"] == {"nodeCount": 2}


@pytest.mark.parametrize("version", VERSIONS)
def test_engines_hold_no_token_and_may_talk_to_the_api_as_the_operator_wants(version: dynamo.ApiVersion) -> None:
    text = files(HOPPER, version)["deploy.yaml"]
    assert "hf-token-secret" not in text
    assert "serviceAccountName" not in text
    assert "automountServiceAccountToken" not in text
    assert env(graph(HOPPER, version), "prefill")["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_mount_has_its_volume(version: dynamo.ApiVersion) -> None:
    of = graph(GB200, version, "cluster.model_cache.claim=weights")
    for name in ("frontend", "prefill", "decode"):
        each = component(of, name)
        beside = [mount["name"] for mount in each.get("volumeMounts", [])]
        there = [*(volume["name"] for volume in pod(of, name).get("volumes", [])), *beside]
        assert len(there) == len(set(there))
        for container in (main(of, name), *pod(of, name).get("initContainers", [])):
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= set(there)
    if version == "v1alpha1":
        assert of["spec"]["pvcs"] == [{"name": "weights", "create": False}]


def test_no_container_mounts_shared_memory_of_its_own() -> None:
    """The operator does: one of both would take its place."""
    for version in VERSIONS:
        assert "/dev/shm" not in files(HOPPER, version)["deploy.yaml"]


@pytest.mark.parametrize("version", VERSIONS)
def test_nvlink_takes_the_domains_claim(version: dynamo.ApiVersion) -> None:
    rendered = files(GB200, version)
    domain = yaml.safe_load(rendered["compute-domain.yaml"])
    assert domain["spec"]["numNodes"] == 4
    of = yaml.safe_load(rendered["deploy.yaml"])
    for name in ("prefill", "decode"):
        (claim,) = pod(of, name)["resourceClaims"]
        assert claim["resourceClaimTemplateName"] == domain["spec"]["channel"]["resourceClaimTemplate"]["name"]
        assert main(of, name)["resources"]["claims"] == compute_domain.container_claims()
        assert "affinity" in pod(of, name)


@pytest.mark.parametrize("version", VERSIONS)
def test_probes_wait_for_the_load_and_for_a_stall(version: dynamo.ApiVersion) -> None:
    of = graph(HOPPER, version)
    for name in ("prefill", "decode"):
        start, live = main(of, name)["startupProbe"], main(of, name)["livenessProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] >= probes.startup_s(deployment(HOPPER))
        assert live["periodSeconds"] * live["failureThreshold"] >= 120
        assert start["httpGet"] == live["httpGet"] == {"path": "/live", "port": 9090}
        assert pod(of, name)["terminationGracePeriodSeconds"] > deployment(HOPPER).gateway.request_timeout_s


@pytest.mark.parametrize("version", VERSIONS)
def test_other_pods_reach_the_side_channel(version: dynamo.ApiVersion) -> None:
    of = graph(SMALL_PREFILL, version)
    assert env(of, "prefill")["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "status.podIP"
    for name in ("prefill", "decode"):
        assert env(of, name)["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"
        assert env(of, name)["VLLM_HOST_IP"] == "status.podIP"


@pytest.mark.parametrize("version", VERSIONS)
def test_over_several_nodes_the_operator_adds_a_variable_that_must_not_be_there_twice(
    version: dynamo.ApiVersion,
) -> None:
    """Custom resources that hold a list of variables by name (LeaderWorkerSet's does) refuse the second."""
    assert "VLLM_NIXL_SIDE_CHANNEL_HOST" not in env(graph(SMALL_PREFILL, version), "decode")


def test_the_deployment_must_be_for_the_vllm_inside() -> None:
    with pytest.raises(ConfigError, match=r"engine\.version: got 0\.33\.0, .*Dynamo 1\.6\.1 hold vLLM 0\.31\.0"):
        dynamo.files(deployment(HOPPER, vllm="0.33.0"), "v1beta1")


def test_a_release_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"7\.0\.0.*1\.6\.1"):
        dynamo.files(deployment(HOPPER, "cluster.dynamo.version=7.0.0", vllm="0.31.0"), "v1beta1")


def test_no_gpu_no_dynamo() -> None:
    with pytest.raises(ConfigError, match=r"hardware\.accelerator: got cpu"):
        dynamo.files(deployment("tiny-local"), "v1beta1")


@pytest.mark.parametrize(("stem", "longest"), [(HOPPER, 27), (SMALL_PREFILL, 29)])
def test_a_name_that_grove_refuses_is_refused_here(stem: str, longest: int) -> None:
    """27 with prefill and prefill-ldr are 45 characters, 29 with decode and decode-ldr."""
    files(stem, "v1beta1", f"name={'a' * longest}")
    with pytest.raises(ConfigError, match=rf"name: got .*{longest + 1} characters; Dynamo takes {longest} .*45"):
        files(stem, "v1beta1", f"name={'a' * (longest + 1)}")


def test_what_is_left_out_and_what_was_never_run_is_said_in_the_file() -> None:
    text = files(HOPPER, "v1beta1", "roles.decode.flags.chat-template-content-format=openai")["deploy.yaml"]
    head = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert re.search(r"Left out, [^:]*HTTP server[^:]*: .*--enable-scale-out,", head)
    assert "--chat-template-content-format (decode)" in head
    assert "Nobody has run this on real hardware yet." in head
    assert "Nobody has" not in files(HOPPER, "v1beta1", "run_on=[4 nodes of 8 H200]")["deploy.yaml"]


@pytest.mark.parametrize(
    "image", ["mirror/vllm-runtime:1.6.1", "mirror/r:v1.6.1-cuda13", f"m/r:1.6.1@sha256:{'0' * 64}"]
)
def test_a_tag_that_says_the_release_needs_no_other_word(image: str) -> None:
    of = graph(HOPPER, "v1beta1", f"cluster.dynamo.image={image}")
    assert main(of, "decode")["image"] == image
    assert "runtimeVersionOverride" not in component(of, "decode")


NASTY = "$$ $(GROVE_PCSG_NAME) a b'c\"d;e|f&g`h`$(id)$HOME${HOME}\\é\n--data-parallel-size 3 python3 -m dynamo.vllm"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["prefill", "decode"])
def test_no_value_is_read_by_a_shell_or_expanded(name: str, version: dynamo.ApiVersion, tmp_path: Path) -> None:
    quoted = yaml.safe_dump(NASTY, default_style='"', width=10_000, allow_unicode=True).strip()
    of = graph(SMALL_PREFILL, version, f"roles.{name}.flags.served-thing={quoted}")
    seen = run(main(of, name), tmp_path, is_spread=name == "decode")
    assert value(seen, "--served-thing") == NASTY


def test_a_node_is_told_its_ranks_where_the_operator_puts_them(tmp_path: Path) -> None:
    seen = run(main(graph(GB200, "v1beta1"), "decode"), tmp_path, is_spread=True)
    assert seen[:2] == ["-m", "dynamo.vllm"]
    assert value(seen, "--data-parallel-size") == "8"
    assert value(seen, "--data-parallel-size-local") == "4"
    assert value(seen, "--data-parallel-start-rank") == "4"
    assert value(seen, "--data-parallel-address") == "g-0-decode-ldr-0.s"


def run(container: Object, folder: Path, *, is_spread: bool) -> list[str]:
    """The words Python gets after the operator (backend_vllm.go, utils.go; on the second node), kubelet and shell."""
    given: dict[str, Any] = copy.deepcopy({key: container[key] for key in ("command", "args")})
    if is_spread:
        flags = (
            "--data-parallel-hybrid-lb --data-parallel-size-local 4 "
            "--data-parallel-start-rank $(( 4 * $((GROVE_PCLQ_POD_INDEX + 1)) )) "
            f"--data-parallel-address {LEADER} --data-parallel-rpc-port 13445"
        )
        pattern = re.compile(r"(python[0-9.]*\s+[^|&;]*vllm[^|&;]*?)(\s|$|[|&;])")
        at = next(at for at, word in enumerate(given["args"]) if pattern.search(word))
        given["args"][at] = pattern.sub(lambda found: f"{found[1]} {flags}{found[2]}", given["args"][at])
    fake = folder / "python3"
    fake.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    fake.chmod(0o755)
    seen = subprocess.run(
        kubelet.words(given, GROVE),
        env={"PATH": f"{folder}:{os.environ['PATH']}", "GROVE_PCLQ_POD_INDEX": "0"},
        capture_output=True,
        check=True,
        text=True,
    )
    return seen.stdout.split("\0")[:-1]


def test_settings_of_our_gateway_are_said_to_be_left_out_for_another_answers() -> None:
    def head(*settings: str) -> str:
        text = files(HOPPER, "v1beta1", *settings)["deploy.yaml"]
        return " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))

    said = head("gateway.api_keys={secret: keys}", "gateway.max_queued=5", "gateway.port=9000")
    assert re.search(
        r"Left out, [^:]*Dynamo's frontend[^:]*API key[^:]*: gateway\.api_keys, gateway\.max_queued\b", said
    )
    assert "gateway.port" not in said
    assert "API key" not in head()
