"""The engines' pods of `--target kubernetes`: commands, devices, places, probes."""

import dataclasses
import os
import subprocess

import pytest
import yaml
from support.of_recipes import (
    CPU,
    GB200,
    HOPPER,
    ON_CPU,
    RDMA,
    container,
    deployment,
    env,
    gateway,
    group,
    objects,
    pod,
    words,
    workers_of,
)

from baton.base.errors import ConfigError
from baton.render import kubernetes, probes


def test_a_replica_is_a_group_that_starts_and_restarts_as_one() -> None:
    found = objects(HOPPER, "roles.prefill.replicas=3")
    spec = found["LeaderWorkerSet", "vllm-dsr1-prefill"]["spec"]
    assert (spec["replicas"], spec["startupPolicy"]) == (3, "LeaderCreated")
    assert spec["leaderWorkerTemplate"]["size"] == 2
    assert spec["leaderWorkerTemplate"]["restartPolicy"] == "RecreateGroupOnPodRestart"


def test_the_leader_runs_vllm_without_a_shell() -> None:
    leader = container(objects(HOPPER), "decode")
    assert leader["command"] == ["vllm"]
    assert leader["args"][:2] == ["serve", "/model-cache/deepseek-r1"]
    at = leader["args"].index("--data-parallel-start-rank")
    assert leader["args"][at + 1] == "0"
    assert leader["args"][leader["args"].index("--data-parallel-address") + 1] == "$(LWS_LEADER_ADDRESS)"


def test_a_worker_multiplies_its_index_and_reads_no_value_as_shell() -> None:
    worker = container(
        objects(HOPPER, "roles.decode.nodes=4", "roles.decode.gpus_per_node=4"), "decode", "workerTemplate"
    )
    assert worker["command"] == [
        "/bin/sh",
        "-c",
        'exec "$$@" --data-parallel-start-rank "$$((LWS_WORKER_INDEX * 4))"',
        "sh",
    ]
    assert worker["args"][:2] == ["vllm", "serve"]
    assert "--data-parallel-start-rank" not in worker["args"]


@pytest.mark.parametrize("index", [1, 3])
def test_the_workers_shell_adds_its_rank_and_changes_no_word(index: int) -> None:
    of = deployment(HOPPER, "roles.decode.nodes=4", "roles.decode.gpus_per_node=4")
    model = of.model.model_copy(update={"name": "$(id) `id` '\"; $HOME\n*"})
    files = kubernetes.files(dataclasses.replace(of, model=model))
    template = yaml.safe_load(files["decode.yaml"])["spec"]["leaderWorkerTemplate"]
    (worker,) = template["workerTemplate"]["spec"]["containers"]
    expanded = [word.replace("$$", "$") for word in words(worker)]  # nothing but the leader's address is a variable
    at = expanded.index("vllm")
    expanded[at : at + 1] = ["printf", "%s\\0"]
    said = subprocess.run(expanded, env={"LWS_WORKER_INDEX": str(index), "PATH": os.defpath}, check=True, stdout=-1)
    assert said.stdout.decode().split("\0")[:-1] == [
        *expanded[at + 2 :],
        "--data-parallel-start-rank",
        str(4 * index),
    ]


@pytest.mark.parametrize("nodes", [2, 4])
def test_leader_and_workers_differ_in_nothing_but_their_rank(nodes: int) -> None:
    found = objects(HOPPER, f"roles.decode.nodes={nodes}", f"roles.decode.gpus_per_node={16 // nodes}")
    assert group(found, "decode")["size"] == nodes
    leader = container(found, "decode")["args"]
    at = leader.index("--data-parallel-start-rank")
    assert container(found, "decode", "workerTemplate")["args"][1:] == [*leader[:at], *leader[at + 2 :]]


def test_one_node_is_one_pod_without_anyone_to_find() -> None:
    found = objects("deepseek-r1-gb200-2p4-1d8")
    alone = group(found, "prefill")
    assert alone["size"] == 1
    assert "leaderTemplate" not in alone
    assert not [word for word in words(container(found, "prefill", "workerTemplate")) if "LWS" in word]
    assert found["LeaderWorkerSet", "vllm-dsr1-gb200-2p4-1d8-prefill"]["spec"]["replicas"] == 2


def test_headless_workers_are_not_probed_and_open_no_port() -> None:
    found = objects(HOPPER, "roles.decode.load_balancing=internal")
    worker = container(found, "decode", "workerTemplate")
    assert "--headless" in worker["args"]
    assert not {"startupProbe", "livenessProbe", "readinessProbe", "ports"} & worker.keys()
    assert container(found, "decode")["ports"] == [
        {"name": "http", "containerPort": 8000},
        {"name": "dp-rpc", "containerPort": 13345},
    ]
    decoders = [w for w in workers_of(found).workers if w.role == "decode"]
    assert [w.dp_ranks for w in decoders] == [tuple(range(16))]


def test_external_load_balancing_has_a_port_a_rank_everywhere() -> None:
    found = objects(HOPPER, "roles.decode.load_balancing=external", "engine.version=0.32.0")
    worker = container(found, "decode", "workerTemplate")
    assert [port["containerPort"] for port in worker["ports"]] == list(range(8000, 8008))
    assert len({port["name"] for port in worker["ports"]}) == 8
    http = found["NetworkPolicy", "vllm-dsr1-decode"]["spec"]["ingress"][0]["ports"]
    assert http == [{"protocol": "TCP", "port": 8000, "endPort": 8007}]
    asked = [each["port"] for each in found["PodMonitor", "vllm-dsr1-decode"]["spec"]["podMetricsEndpoints"]]
    assert asked == [port["name"] for port in worker["ports"]]


def test_external_load_balancing_with_a_rank_a_node_numbers_the_rank() -> None:
    settings = ("roles.decode.load_balancing=external", "roles.decode.dp_size=2", "roles.decode.gpus_per_node=8")
    found = objects(HOPPER, *settings, "roles.decode.tp_size=8")
    worker = container(found, "decode", "workerTemplate")
    assert '--data-parallel-rank "$$((LWS_WORKER_INDEX * 1))"' in worker["command"][2]
    assert "--data-parallel-rank" not in worker["args"]


def test_a_cpu_recipe_asks_for_no_device() -> None:
    found = objects(CPU, *ON_CPU, "cluster.cpu='4'", "cluster.memory=8Gi")
    engine = container(found, "decode", "workerTemplate")
    assert engine["resources"] == {"requests": {"cpu": "4", "memory": "8Gi"}}
    assert "capabilities" not in engine["securityContext"]


def test_gpus_and_rdma_devices_are_asked_for_and_memory_has_no_limit() -> None:
    found = objects(HOPPER, *RDMA, "cluster.cpu='64'", "cluster.memory=850Gi")
    engine = container(found, "decode")
    devices = {"nvidia.com/gpu": "8", "rdma/ib": "8"}
    assert engine["resources"] == {"requests": {"cpu": "64", "memory": "850Gi", **devices}, "limits": devices}
    added = engine["securityContext"]["capabilities"]["add"]
    assert added == ["IPC_LOCK", "SYS_RAWIO"]
    assert engine["securityContext"]["runAsUser"] == 0


def test_shared_memory_is_as_large_as_the_recipe_says() -> None:
    found = objects(HOPPER, "cluster.shared_memory=80Gi")
    volumes = {volume["name"]: volume for volume in pod(found, "prefill")["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container(found, "prefill")["volumeMounts"]}
    assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "80Gi"}
    assert mounts["/model-cache"]["readOnly"] is True
    assert {mount["name"] for mount in mounts.values()} == set(volumes)
    assert env(container(found, "prefill"))["HOME"] in mounts


def test_pods_go_where_the_recipe_says() -> None:
    found = objects(
        HOPPER,
        "cluster.node_selector={pool: h200}",
        "cluster.tolerations=[{key: nvidia.com/gpu, effect: NoSchedule}, {key: team, value: a}]",
        "cluster.image_pull_secrets=[regcred]",
        "cluster.registry=mirror.example:5000/x",
    )
    for part in ("leaderTemplate", "workerTemplate"):
        spec = pod(found, "decode", part)
        assert spec["nodeSelector"] == {"pool": "h200"}
        assert spec["tolerations"] == [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "team", "operator": "Equal", "value": "a"},
        ]
        assert spec["imagePullSecrets"] == [{"name": "regcred"}]
        assert spec["enableServiceLinks"] is False
        assert spec["containers"][0]["image"] == "mirror.example:5000/x/vllm/vllm-openai:v0.33.0"
    front = gateway(found)["spec"]["template"]["spec"]
    assert front["containers"][0]["image"] == "mirror.example:5000/x/baton:0.1.0"
    assert front["imagePullSecrets"] == [{"name": "regcred"}]
    assert front["tolerations"] == spec["tolerations"]
    assert "nodeSelector" not in front


def test_a_value_of_every_taint_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs `key`"):
        deployment(HOPPER, "cluster.tolerations=[{value: a}]")


def test_the_side_channel_is_at_the_pods_own_address() -> None:
    for part in ("leaderTemplate", "workerTemplate"):
        found = env(container(objects(HOPPER), "decode", part))
        assert found["VLLM_NIXL_SIDE_CHANNEL_HOST"] == {"fieldRef": {"fieldPath": "status.podIP"}}
        assert found["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"


@pytest.mark.parametrize(("version", "has"), [("0.33.0", True), ("0.14.1", True), ("0.12.0", False)])
def test_vllm_waits_for_its_ranks_as_long_as_the_probe_does(version: str, has: bool) -> None:
    engine = container(objects(HOPPER, f"engine.version={version}"), "decode")
    probe = engine["startupProbe"]
    waits = str(probe["periodSeconds"] * probe["failureThreshold"])
    assert env(engine).get("VLLM_ENGINE_READY_TIMEOUT_S") == (waits if has else None)


def test_what_a_recipe_sets_itself_stays() -> None:
    found = objects(HOPPER, "engine.env.VLLM_ENGINE_READY_TIMEOUT_S='77'", "roles.decode.flags.shutdown-timeout=100")
    assert env(container(found, "decode"))["VLLM_ENGINE_READY_TIMEOUT_S"] == "77"
    assert pod(found, "decode")["terminationGracePeriodSeconds"] > 100
    assert pod(found, "prefill")["terminationGracePeriodSeconds"] < 100


HOSTILE = [
    "$(HOSTNAME)",
    "$(LWS_LEADER_ADDRESS)",
    "$$",
    "`id`",
    "'; id; '",
    '"',
    "a\nb: c",
    "---",
    "ключ \u2028",
    "#",
    "&a",
    "*a",
    "-",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_value_of_a_recipe_means_anything_to_yaml_shell_or_kubernetes(text: str) -> None:
    of = deployment(HOPPER)
    model = of.model.model_copy(update={"name": text})
    engines = tuple(
        dataclasses.replace(engine, env={**engine.env, "SAID": text}, flags={**engine.flags, "said": text})
        for engine in of.engines
    )
    files = kubernetes.files(dataclasses.replace(of, model=model, engines=engines))
    found = {each["metadata"]["name"]: each for each in yaml.safe_load_all(files["decode.yaml"])}
    template = found["vllm-dsr1-decode"]["spec"]["leaderWorkerTemplate"]
    for part in ("leaderTemplate", "workerTemplate"):
        (engine,) = template[part]["spec"]["containers"]
        said = text.replace("$", "$$")
        assert engine["args"][engine["args"].index("--served-model-name") + 1] == said
        assert engine["args"][engine["args"].index("--said") + 1] == said
        assert env(engine)["SAID"] == said
    assert template["workerTemplate"]["spec"]["containers"][0]["command"][2].startswith('exec "$$@" ')


# NVLink


def test_gb200_pods_join_one_compute_domain_in_one_clique() -> None:
    found = objects(GB200)
    domain = found["ComputeDomain", "vllm-dsr1-gb200-compute-domain"]["spec"]
    assert domain["numNodes"] == 4
    template = domain["channel"]["resourceClaimTemplate"]["name"]
    for role in ("prefill", "decode"):
        for part in ("leaderTemplate", "workerTemplate"):
            spec = pod(found, role, part)
            (claim,) = spec["resourceClaims"]
            assert claim["resourceClaimTemplateName"] == template
            assert spec["containers"][0]["resources"]["claims"] == [{"name": claim["name"]}]
            (term,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            assert term["topologyKey"] == "nvidia.com/gpu.clique"
            labels = group(found, role)[part]["metadata"]["labels"]
            assert term["labelSelector"]["matchLabels"].items() <= labels.items()


def test_the_compute_domain_spans_all_nodes_of_all_replicas() -> None:
    found = objects("deepseek-r1-gb200-2p4-1d8", "roles.prefill.replicas=3")
    assert found["ComputeDomain", "vllm-dsr1-gb200-2p4-1d8-compute-domain"]["spec"]["numNodes"] == 3 * 1 + 1 * 2


@pytest.mark.parametrize(
    "settings", [(HOPPER,), (HOPPER, "hardware.fabric=nvlink"), (GB200, "hardware.fabric=infiniband")]
)
def test_without_nvlink_between_nodes_there_is_no_compute_domain(settings: tuple[str, ...]) -> None:
    found = objects(*settings)
    assert not [kind for kind, _ in found if kind == "ComputeDomain"]
    assert "resourceClaims" not in pod(found, "decode")


# Probes


def budget_s(recipe: str, *settings: str) -> int:
    probe = container(objects(recipe, *settings), "decode")["startupProbe"]
    return int(probe["periodSeconds"] * probe["failureThreshold"])


def test_the_start_is_given_twice_the_time_the_checkpoint_takes_to_read() -> None:
    slower_s = budget_s(HOPPER, "cluster.model_cache.read_bytes_per_s=500000000") - budget_s(HOPPER)
    assert slower_s == pytest.approx(2 * 671e9 / 1e9, rel=0.05)
    assert budget_s(HOPPER, "cluster.model_cache.read_bytes_per_s=1000000000000") > 2 * 142
    assert budget_s(HOPPER) > budget_s(GB200)


def test_a_model_nobody_knows_may_be_as_large_as_its_volume() -> None:
    settings = ("model.name=x", "model.path=/model-cache/x", "cluster.model_cache.size=1000Gi")
    assert budget_s(HOPPER, *settings) > 2 * (1000 << 30) / 1e9


@pytest.mark.parametrize("settings", [("cluster.model_cache.read_bytes_per_s=1",), ("gateway.request_timeout_s=1e18",)])
def test_nobody_waits_longer_than_days(settings: tuple[str, ...]) -> None:
    found = objects(HOPPER, *settings)
    assert container(found, "decode")["startupProbe"]["failureThreshold"] < 1 << 31
    assert gateway(found)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] < 2 * 86400


@pytest.mark.parametrize(
    ("text", "size"), [("130", 130), ("2k", 2000), ("1Ki", 1024), ("850Gi", 850 << 30), ("3P", 3e15)]
)
def test_quantities(text: str, size: float) -> None:
    assert probes.quantity(text) == size


def test_a_stall_of_a_minute_restarts_nobody() -> None:
    probe = container(objects(HOPPER), "decode")["livenessProbe"]
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) > 120
    assert probe["timeoutSeconds"] <= probe["periodSeconds"]


def test_probes_ask_a_port_that_the_container_has() -> None:
    found = objects(HOPPER)
    for each in (container(found, "decode"), gateway(found)["spec"]["template"]["spec"]["containers"][0]):
        ports = {port["name"] for port in each["ports"]}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert each[kind]["httpGet"]["port"] in ports
