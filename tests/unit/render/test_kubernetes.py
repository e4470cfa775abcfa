"""What `--target kubernetes` writes beside the engines, asked of the objects themselves."""

import hashlib
import re
from pathlib import Path

import pytest
import typer
import yaml
from support.of_recipes import (
    CPU,
    GB200,
    HOPPER,
    ON_CPU,
    ROOT,
    Object,
    Objects,
    deployment,
    gateway,
    objects,
    pod,
    words,
    workers_of,
)

from baton.base.errors import ConfigError
from baton.check.bundle import read_bundle
from baton.check.finding import Harm
from baton.check.run import check, harm_of
from baton.cli.gateway import gateway as run_gateway
from baton.render import addresses, kubernetes, names
from baton.render.documents import MARK


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/deepseek-r1-*.yaml")), ids=lambda path: path.stem)
def test_our_own_checker_finds_nothing(path: Path, tmp_path: Path) -> None:
    for name, text in kubernetes.files(deployment(path.stem)).items():
        (tmp_path / name).write_text(text)
    report = check(read_bundle(sorted(tmp_path.glob("*.yaml"))))
    assert [(f.code, f.message) for f in report.findings if harm_of(f) is not Harm.UNKNOWN] == []
    assert report.bundle.engines
    assert report.bundle.pairs


def test_the_same_recipe_gives_the_same_bytes() -> None:
    assert list(kubernetes.files(deployment(HOPPER)).items()) == list(kubernetes.files(deployment(HOPPER)).items())


@pytest.mark.parametrize("recipe", [HOPPER, GB200])
def test_every_file_says_what_it_was_made_from_and_has_no_alias(recipe: str) -> None:
    of = deployment(recipe)
    for text in kubernetes.files(of).values():
        assert text.startswith(f"{MARK}{of.name}, sha256 {of.recipe_digest}")
        assert not re.search(r"[:-] [&*]\w", text)


def test_the_kustomization_lists_every_manifest_namespace_first() -> None:
    files = kubernetes.files(deployment(GB200))
    listed = yaml.safe_load(files["kustomization.yaml"])["resources"]
    assert sorted(listed) == sorted(name for name in files if name.endswith(".yaml") and name != "kustomization.yaml")
    assert listed[0] == "namespace.yaml"


def test_everything_lies_in_the_recipes_namespace() -> None:
    found = objects(HOPPER, "cluster.namespace=serving")
    spaces = {
        each["metadata"].get("namespace")
        for (kind, _), each in found.items()
        if kind not in ("Kustomization", "Namespace")
    }
    assert spaces == {"serving"}
    assert ("Namespace", "serving") in found
    assert "dynamo-system" not in "".join(kubernetes.files(deployment(HOPPER, "cluster.namespace=serving")).values())


def test_no_account_has_a_token_or_a_role() -> None:
    found = objects(HOPPER)
    accounts = [each for (kind, _), each in found.items() if kind == "ServiceAccount"]
    assert accounts
    assert all(each["automountServiceAccountToken"] is False for each in accounts)
    assert not {kind for kind, _ in found} & {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Secret"}
    used = {
        pod(found, "decode")["serviceAccountName"],
        gateway(found)["spec"]["template"]["spec"]["serviceAccountName"],
    }
    assert used <= {each["metadata"]["name"] for each in accounts}


# Gateway


def test_the_gateway_serves_the_deployments_workers() -> None:
    found = objects(HOPPER, "gateway.request_timeout_s=90.5", "gateway.max_body_bytes=1000")
    assert workers_of(found) == addresses.workers_file(deployment(HOPPER))
    spec = gateway(found)["spec"]["template"]["spec"]
    (front,) = spec["containers"]
    said = words(front)
    assert said[:2] == ["baton", "gateway"]
    for flag, value in (("--host", "0.0.0.0"), ("--port", "8000"), ("--request-timeout-s", "90.5")):
        assert said[said.index(flag) + 1] == value
    assert said[said.index("--max-body-bytes") + 1] == "1000"
    mounts = {mount["name"]: mount["mountPath"] for mount in front["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    (maps,) = [name for name, volume in volumes.items() if "configMap" in volume]
    assert f"{mounts[maps]}/workers.yaml" == said[said.index("--workers") + 1]
    assert ("ConfigMap", volumes[maps]["configMap"]["name"]) in found
    assert "/model-cache" in mounts.values()


def test_baton_takes_the_words_that_the_gateways_container_runs() -> None:
    (front,) = gateway(objects(HOPPER))["spec"]["template"]["spec"]["containers"]
    _, verb, *rest = words(front)
    assert verb == "gateway"
    app = typer.Typer()
    app.command()(run_gateway)
    given = typer.main.get_command(app).make_context(verb, rest).params
    assert (given["host"], given["port"], given["request_timeout_s"]) == ("0.0.0.0", 8000, 600.0)


def test_other_workers_roll_the_gateway_and_other_settings_of_engines_do_not() -> None:
    def annotations(*settings: str) -> dict[str, str]:
        return gateway(objects(HOPPER, *settings))["spec"]["template"]["metadata"]["annotations"]

    assert annotations() != annotations("roles.prefill.replicas=2")
    assert annotations() == annotations("cluster.shared_memory=1Gi")


def test_the_annotation_is_the_hash_of_the_file_that_is_mounted() -> None:
    found = objects(HOPPER)
    text = found["ConfigMap", "vllm-dsr1-frontend"]["data"]["workers.yaml"]
    assert (
        hashlib.sha256(text.encode()).hexdigest()
        in gateway(found)["spec"]["template"]["metadata"]["annotations"].values()
    )


def given_to_the_verb(front: Object) -> dict[str, object]:
    """What `baton gateway` reads off the container's words."""
    _, verb, *rest = words(front)
    app = typer.Typer()
    app.command()(run_gateway)
    return typer.main.get_command(app).make_context(verb, rest).params


def test_api_keys_are_a_secret_that_is_mounted_read_only() -> None:
    found = objects(HOPPER, "gateway.api_keys={secret: keys-of-r1, key: mine.yaml}")
    spec = gateway(found)["spec"]["template"]["spec"]
    (front,) = spec["containers"]
    (volume,) = [each for each in spec["volumes"] if each.get("secret", {}).get("secretName") == "keys-of-r1"]
    (mount,) = [each for each in front["volumeMounts"] if each["name"] == volume["name"]]
    (item,) = volume["secret"]["items"]
    assert item["key"] == "mine.yaml"
    assert mount["readOnly"] is True
    assert "subPath" not in mount, "kubelet never updates one"
    assert given_to_the_verb(front)["api_keys"] == Path(mount["mountPath"], item["path"])
    assert ("Secret", "keys-of-r1") not in found, "who runs the cluster makes it"
    text = kubernetes.files(deployment(HOPPER, "gateway.api_keys={secret: keys-of-r1, key: mine.yaml}"))[
        "frontend.yaml"
    ]
    assert "create secret generic keys-of-r1 --from-file=mine.yaml=FILE" in text


def test_keys_that_are_in_no_secret_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"got file .*keys\.yaml, .*set gateway\.api_keys\.secret"):
        objects(HOPPER, "gateway.api_keys={file: keys.yaml}")


def test_the_gateway_is_told_what_the_recipe_chooses() -> None:
    chosen = {"ttft_deadline_s": 5.0, "max_queued": 9, "hold_s": 0.0, "processes": 3}
    found = objects(HOPPER, *(f"gateway.{name}={value}" for name, value in chosen.items()))
    spec = gateway(found)["spec"]["template"]["spec"]
    (front,) = spec["containers"]
    given = given_to_the_verb(front)
    assert {name: given[name] for name in chosen} == chosen
    (sockets,) = [each["name"] for each in spec["volumes"] if "emptyDir" in each]
    assert {"name": sockets, "mountPath": "/tmp"} in front["volumeMounts"], "where its processes meet"
    assert front["resources"]["requests"]["cpu"] == "4", "each a core, and the router's"


def test_a_gateway_by_default_is_told_and_given_nothing_of_it() -> None:
    spec = gateway(objects(HOPPER))["spec"]["template"]["spec"]
    assert not any("secret" in each or "emptyDir" in each for each in spec["volumes"])
    assert not {"--api-keys", "--ttft-deadline-s", "--max-queued", "--hold-s", "--processes", "--exact-prefixes"} & {
        *words(spec["containers"][0])
    }


def test_a_gateway_that_follows_kv_events_may_hear_them() -> None:
    events = "{enable_kv_cache_events: true, publisher: zmq, endpoint: 'tcp://*:5557', replay_endpoint: 'tcp://*:6557'}"
    settings = ("gateway.exact_prefixes=true", f"roles.prefill.flags.kv-events-config={events}")
    found = objects(HOPPER, *settings)
    (front,) = gateway(found)["spec"]["template"]["spec"]["containers"]
    assert given_to_the_verb(front)["exact_prefixes"] is True
    heard = [port["port"] for rule in selected(found, "vllm-dsr1-prefill") for port in rule.get("ports", ())]
    assert {5557, 6557} <= {*heard}
    of_gateways = selected(found, "vllm-dsr1-prefill")[-1]
    assert [each["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in of_gateways["from"]] == [
        "frontend"
    ]
    for worker in workers_of(found).workers:
        for port in (worker.kv_events_port, worker.kv_replay_port):
            assert port is None or any(
                each["port"] <= port <= port + len(worker.dp_ranks) - 1 <= each.get("endPort", each["port"])
                for each in of_gateways["ports"]
            )
    assert not {5557, 6557} & {
        port["port"]
        for rule in selected(objects(HOPPER, settings[1]), "vllm-dsr1-prefill")
        for port in rule.get("ports", ())
    }


def test_the_gateway_has_no_rights() -> None:
    spec = gateway(objects(HOPPER))["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_gateway_that_leaves_has_time_for_every_request_it_holds() -> None:
    spec = gateway(objects(HOPPER, "gateway.request_timeout_s=900"))["spec"]["template"]["spec"]
    said = words(spec["containers"][0])
    assert float(said[said.index("--drain-s") + 1]) >= 900
    unlisted_s = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] > 900 + unlisted_s


def test_the_published_service_answers_on_8000() -> None:
    for recipe, name in ((HOPPER, "vllm-dsr1-frontend"), (GB200, "vllm-dsr1-gb200-frontend")):
        found = objects(recipe)
        service = found["Service", name]["spec"]
        assert service["ports"][0]["port"] == 8000
        assert service["selector"].items() <= gateway(found)["spec"]["template"]["metadata"]["labels"].items()


def test_the_containerfile_makes_the_image_the_gateway_runs() -> None:
    of = deployment(HOPPER, "cluster.registry=mirror.example")
    text = kubernetes.files(of)["Containerfile"]
    spec = gateway(objects(HOPPER, "cluster.registry=mirror.example"))["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] in text
    assert f"USER {spec['securityContext']['runAsUser']}:" in text


# Network, disruption, monitoring


def selected(found: Objects, policy: str) -> list[Object]:
    return found["NetworkPolicy", policy]["spec"]["ingress"]


def test_engines_hear_gateways_prometheus_and_each_other_and_nobody_else() -> None:
    found = objects(HOPPER)
    http, side_channel, inside = selected(found, "vllm-dsr1-decode")
    component = "app.kubernetes.io/component"
    pods = [each["podSelector"]["matchLabels"][component] for each in http["from"] if "podSelector" in each]
    assert pods == ["frontend"]
    (space,) = [each["namespaceSelector"] for each in http["from"] if "namespaceSelector" in each]
    assert space == {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    assert http["ports"] == [{"protocol": "TCP", "port": 8000}]
    assert side_channel["from"][0]["podSelector"]["matchLabels"][component] == "prefill"
    assert side_channel["ports"] == [{"protocol": "TCP", "port": 5600, "endPort": 5615}]
    assert inside["from"][0]["podSelector"]["matchLabels"][component] == "decode"
    assert "ports" not in inside
    assert all(each["from"] for each in (http, side_channel, inside))


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        (CPU, ON_CPU),
        (HOPPER, ("hardware.fabric=none", "cluster.rdma_resource=null")),
        (HOPPER, ("engine.env.UCX_TLS=all",)),
    ],
)
def test_where_ucx_may_use_tcp_the_roles_reach_any_port_of_each_other(recipe: str, settings: tuple[str, ...]) -> None:
    found = objects(recipe, *settings)
    (policy,) = [name for kind, name in found if kind == "NetworkPolicy" and name.endswith("decode")]
    assert "ports" not in selected(found, policy)[1]


def test_everybody_may_ask_the_gateway() -> None:
    assert selected(objects(HOPPER), "vllm-dsr1-frontend") == [{"ports": [{"protocol": "TCP", "port": 8000}]}]


def test_nobody_watches_without_a_monitoring_namespace() -> None:
    settings = "cluster.monitoring_namespace=null"
    found = objects(HOPPER, settings)
    assert "PodMonitor" not in {kind for kind, _ in found}
    assert "monitoring.yaml" not in kubernetes.files(deployment(HOPPER, settings))
    assert "namespaceSelector" not in str(selected(found, "vllm-dsr1-decode"))


def test_a_drain_takes_one_group_at_a_time_and_never_the_only_one() -> None:
    found = objects(HOPPER, "roles.decode.replicas=3", "cluster.gateway_replicas=3")
    kept = {name: each["spec"]["minAvailable"] for (kind, name), each in found.items() if kind == "PodDisruptionBudget"}
    assert kept == {"vllm-dsr1-prefill": 2, "vllm-dsr1-decode": 4, "vllm-dsr1-frontend": 2}


def test_a_single_gateway_may_be_drained() -> None:
    found = objects(HOPPER, "cluster.gateway_replicas=1")
    assert ("PodDisruptionBudget", "vllm-dsr1-frontend") not in found


# Names


def test_the_longest_name_fits_everywhere() -> None:
    name = "a" * 40
    found = objects(HOPPER, f"name={name}", "roles.decode.replicas=99")
    for (kind, called), each in found.items():
        assert len(called) <= 63, kind
        for key, value in each.get("metadata", {}).get("labels", {}).items():
            assert len(value) <= 63, key
    revision = f"{name}-prefill-98-0123456789"  # controller-revision-hash of the workers' StatefulSet
    assert len(revision) <= 63
    for worker in workers_of(found).workers:
        host = worker.url.removeprefix("http://").split(":")[0]
        assert all(len(label) <= 63 for label in host.split("."))


def test_a_checkpoint_outside_the_volume_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.path"):
        kubernetes.files(deployment(CPU))


def test_labels_find_the_pods_of_their_own_deployment_only() -> None:
    mine, other = deployment(HOPPER), deployment(GB200)
    for component in ("prefill", "decode", names.FRONTEND):
        assert not names.labels(mine, component).items() <= names.labels(other, component).items()
