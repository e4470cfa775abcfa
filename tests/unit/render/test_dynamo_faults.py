"""Faults of the published DeepSeek-R1 recipes, each absent here (ai-dynamo/dynamo, recipes/deepseek-r1/vllm/disagg).

Numbered as in the review of that folder that this project started from. Some are a README's, not a manifest's: of those
is asked what a render can answer.
"""

import json
from pathlib import Path

import pytest
import yaml
from support.graphs import (
    GB200,
    HOPPER,
    OURS,
    RECIPES,
    SMALL_PREFILL,
    VERSIONS,
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

from baton.catalogue.engine import load_engine, version_key, versions
from baton.catalogue.model import load_model
from baton.perf import memory
from baton.recipe.recipe import Role
from baton.render import dynamo
from baton.render.probes import checkpoint_bytes, quantity

ROLES = ("prefill", "decode")
CASES = pytest.mark.parametrize(("stem", "version"), [(stem, version) for stem in OURS for version in VERSIONS])


@CASES
def test_1_prefill_is_there_and_the_domain_spans_every_node(stem: str, version: dynamo.ApiVersion) -> None:
    """Prefill was commented out, so 8 GPUs came up of 16, and the ComputeDomain had half of the nodes."""
    rendered = files(stem, version)
    of = yaml.safe_load(rendered["deploy.yaml"])
    nodes = 0
    for name in ROLES:
        each = component(of, name)
        assert each["replicas"] >= 1
        nodes += each["replicas"] * each.get("multinode", {}).get("nodeCount", 1)
    assert nodes == len(deployment(stem).engines)
    if "compute-domain.yaml" in rendered:
        assert yaml.safe_load(rendered["compute-domain.yaml"])["spec"]["numNodes"] == nodes


@CASES
def test_2_the_all2all_backend_is_the_recipes_and_known_to_the_release(stem: str, version: dynamo.ApiVersion) -> None:
    """The README named flashinfer_all2allv, the manifest another as a placeholder."""
    known = load_engine("vllm", "0.31.0").flags["--all2all-backend"]
    for role in Role:
        (first, *_) = deployment(stem).of_role(role)
        given = first.flags.get("all2all-backend")
        if given is None:
            assert "--all2all-backend" not in words(graph(stem, version), role)
        else:
            assert value(words(graph(stem, version), role), "--all2all-backend") == given
            assert given in (known.choices or known.known)


@CASES
def test_3_every_variable_is_read_by_the_vllm_inside(stem: str, version: dynamo.ApiVersion) -> None:
    """The README listed settings that the manifest lacked, some of them gone from vLLM."""
    read = load_engine("vllm", "0.31.0")
    for name in ROLES:
        given = {each for each in env(graph(stem, version), name) if each.startswith("VLLM_")}
        assert {each for each in given if read.env(each) is None} == set()
        assert set(deployment(stem).of_role(Role(name))[0].env) <= set(env(graph(stem, version), name))


def test_3_an_older_release_gets_the_variables_that_it_still_reads() -> None:
    decode = env(graph(HOPPER, "v1alpha1", "cluster.dynamo.version=0.8.1"), "decode")
    assert "VLLM_MOE_DP_CHUNK_SIZE" in decode
    assert "VLLM_MOE_DP_CHUNK_SIZE" not in env(graph(HOPPER, "v1alpha1"), "decode")


@CASES
def test_4_nothing_to_apply_lies_outside_of_the_folder(stem: str, version: dynamo.ApiVersion) -> None:
    """The README applied ../../hf_hub_secret, which is not there."""
    rendered = files(stem, version)
    listed = yaml.safe_load(rendered["kustomization.yaml"])["resources"]
    assert all(Path(name).parts == (name,) and name in rendered for name in listed)
    assert "Secret" not in {each["kind"] for each in objects(rendered)}


@CASES
def test_5_one_name_for_the_secret_that_the_download_needs(stem: str, version: dynamo.ApiVersion) -> None:
    """The Secret was hf-token-secret; the Job read hf-token, optionally, and went on without a token."""
    (job,) = [each for each in objects(files(stem, version)) if each["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (token,) = [each for each in container["env"] if each["name"] == "HF_TOKEN"]
    asked = token["valueFrom"]["secretKeyRef"]
    assert (asked["name"], asked["key"]) == ("hf-token-secret", "HF_TOKEN")
    assert not asked.get("optional", False)


def test_6_weights_are_called_what_they_are() -> None:
    """The README called an FP8 checkpoint BF16."""
    assert value(words(graph(HOPPER, "v1beta1"), "decode"), "--quantization") == "fp8"
    assert value(words(graph(HOPPER, "v1beta1"), "decode"), "--dtype") == "bfloat16"
    stored = load_model("deepseek-r1")
    assert checkpoint_bytes(deployment(HOPPER)) < 0.6 * memory.total_bytes(
        memory.weights(stored, dtype="bfloat16", tp_size=1, dp_size=1, ep_size=1)
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_7_the_volume_holds_both_checkpoints_and_revisions_are_pinned(version: dynamo.ApiVersion) -> None:
    """1000Gi for two checkpoints of 1.3 TB, an unpinned package and unpinned weights."""
    needed = sum(checkpoint_bytes(deployment(stem)) for stem in (HOPPER, GB200))
    for stem in (HOPPER, GB200):
        rendered = objects(files(stem, version))
        (claim,) = [each for each in rendered if each["kind"] == "PersistentVolumeClaim"]
        assert quantity(claim["spec"]["resources"]["requests"]["storage"]) > 1.3 * needed
        (job,) = [each for each in rendered if each["kind"] == "Job"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        revision = deployment(stem).model.revision
        assert revision is not None
        assert revision in container["args"]
        assert "pip" not in json.dumps(container)


@CASES
def test_8_workers_wait_for_the_download_however_long_it_takes(stem: str, version: dynamo.ApiVersion) -> None:
    """`kubectl wait --timeout=6000s` ended before downloads of one to two hours; the probes' time counts after it."""
    of = graph(stem, version)
    for name in ROLES:
        (wait,) = pod(of, name)["initContainers"]
        assert deployment(stem).model.revision in wait["args"]
        assert wait["image"] == main(of, name)["image"]


@pytest.mark.parametrize("release", versions("dynamo.vllm"))
def test_9_the_role_is_said_as_the_image_knows_it(release: str) -> None:
    """Image 0.8.0 was given --disaggregation-mode, which it does not know."""
    of = graph(HOPPER, "v1alpha1", f"cluster.dynamo.version={release}")
    known = load_engine("dynamo.vllm", release).flags
    for name in ROLES:
        assert main(of, name)["image"].endswith(f":{release}")
        said = {f"--is-{name}-worker", "--disaggregation-mode"} & set(words(of, name))
        assert said
        assert said <= set(known)


@CASES
def test_10_both_roles_have_a_connector_with_their_own_part(stem: str, version: dynamo.ApiVersion) -> None:
    """Prefill had no --kv-transfer-config, which releases since 1.0.2 refuse."""
    of = graph(stem, version)
    for name, part in (("prefill", "kv_producer"), ("decode", "kv_consumer")):
        config = json.loads(value(words(of, name), "--kv-transfer-config"))
        assert (config["kv_connector"], config["kv_role"]) == ("NixlConnector", part)


@pytest.mark.parametrize("release", versions("dynamo.vllm"))
def test_10_and_an_old_worker_gives_up_its_own(release: str) -> None:
    """Up to 0.9.1 a worker had a connector by default and refused both."""
    args = words(graph(HOPPER, "v1alpha1", f"cluster.dynamo.version={release}"), "decode")
    assert ("--connector" in args) is (version_key(release) < (1, 0))
    assert "--kv-transfer-config" in args


@CASES
def test_11_every_command_has_a_program(stem: str, version: dynamo.ApiVersion) -> None:
    """`command: [/bin/bash, -c]` with `args: [--model, ...]` ran nothing."""
    of = graph(stem, version)
    for name in ("frontend", *ROLES):
        first, second, third, *_ = words(of, name)
        module = "dynamo.frontend" if name == "frontend" else "dynamo.vllm"
        if first == "/bin/sh":
            assert (second, third) == ("-c", f'exec python3 -m {module} "$$@"')
        else:
            assert (first, second, third) == ("python3", "-m", module)


@CASES
def test_12_and_13037_both_roles_are_said(stem: str, version: dynamo.ApiVersion) -> None:
    """A prefill worker without its role was one more decode worker; a decode worker without it never made a pair."""
    of = graph(stem, version)
    for name in ROLES:
        assert value(words(of, name), "--disaggregation-mode") == name
        each = component(of, name)
        assert each.get("subComponentType", each.get("type")) == name


@CASES
def test_13_requests_go_by_kv_and_prefill_tells_the_router(stem: str, version: dynamo.ApiVersion) -> None:
    """No manifest set a router mode or KV events: all went round-robin."""
    of = graph(stem, version)
    assert value(words(of, "frontend"), "--router-mode") == "kv"
    events = json.loads(value(words(of, "prefill"), "--kv-events-config"))
    assert events["enable_kv_cache_events"] is True
    assert events["endpoint"].startswith("tcp://*:")


@CASES
def test_14_no_probe_waits_longer_than_it_repeats(stem: str, version: dynamo.ApiVersion) -> None:
    """The frontend's startup probe had 1800 s for an answer and asked every 10 s."""
    of = graph(stem, version)
    for name in ("frontend", *ROLES):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            found = main(of, name).get(probe)
            assert found is None or found["timeoutSeconds"] <= found["periodSeconds"]


@CASES
def test_15_the_interface_is_one_field_and_every_library_is_told(stem: str, version: dynamo.ApiVersion) -> None:
    """ "Adjust NCCL_SOCKET_IFNAME in the manifest" was said of a manifest without it."""
    of = graph(stem, version, "cluster.network_interface=ens7")
    for name in ROLES:
        told = {key: text for key, text in env(of, name).items() if key.endswith("IFNAME")}
        assert {"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"} <= set(told)
        assert set(told.values()) == {"ens7"}


@CASES
def test_16_kv_has_a_way_between_pods(stem: str, version: dynamo.ApiVersion) -> None:
    """GB200 workers asked for no RDMA device: KV went over TCP, where nothing said so."""
    of = graph(stem, version)
    for name in ROLES:
        resources = main(of, name)["resources"]
        limits = {**resources["limits"], **resources["limits"].get("custom", {})}
        assert any(key.startswith("rdma/") for key in limits) or "claims" in resources
        assert env(of, name)["UCX_TLS"] == "^tcp"


@CASES
def test_17_no_memory_limit_holds_shared_memory(stem: str, version: dynamo.ApiVersion) -> None:
    """800Gi of /dev/shm counted against a limit of 850Gi."""
    of = graph(stem, version)
    for name in ROLES:
        assert "memory" not in main(of, name)["resources"].get("limits", {})
        each = component(of, name)
        assert each.get("sharedMemorySize", each.get("sharedMemory", {}).get("size"))


@pytest.mark.parametrize("stem", [HOPPER, GB200, SMALL_PREFILL])
def test_18_the_number_of_gpus_in_the_name_is_the_number_it_takes(stem: str) -> None:
    """A file called 16gpu, in a README that said 8, took 32."""
    of = graph(stem, "v1beta1")
    total = sum(
        component(of, name)["replicas"]
        * component(of, name).get("multinode", {}).get("nodeCount", 1)
        * int(main(of, name)["resources"]["limits"]["nvidia.com/gpu"])
        for name in ROLES
    )
    assert total == {HOPPER: 32, GB200: 16, SMALL_PREFILL: 16}[stem]
    assert stem == SMALL_PREFILL or f"-{total}gpu" in stem


@CASES
def test_19_no_expert_is_chosen_by_chance(stem: str, version: dynamo.ApiVersion) -> None:
    """vllm#32190 (gibberish since 0.12) had VLLM_MOE_ROUTING_SIMULATION_STRATEGY set: experts by chance."""
    assert "VLLM_MOE_ROUTING_SIMULATION_STRATEGY" not in files(stem, version)["deploy.yaml"]


@CASES
def test_20_nothing_is_promised_that_was_not_measured(stem: str, version: dynamo.ApiVersion) -> None:
    """26.2K and 10.1K tokens/s were another layout's."""
    rendered = files(stem, version)
    assert not any(rate in text for text in rendered.values() for rate in ("26.2K", "10.1K"))
    has_run = bool(yaml.safe_load((RECIPES / f"{stem}.yaml").read_text()).get("run_on"))
    assert ("Nobody has run this" in rendered["deploy.yaml"]) is not has_run
