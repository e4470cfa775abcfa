"""What a deployment gives each of its parts, read off what is rendered: the engines' words and variables, the objects.

For a deployment that no cluster runs (its checkpoint is not in the cluster's volume, its API keys are in no Secret) it
is the command on one machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from baton.base.errors import ConfigError
from baton.catalogue.engine import EngineCatalogue, load_engine
from baton.catalogue.published import Where
from baton.engine.command import Place, serve_command
from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Role
from baton.render import compute_domain, engines, frontend, model_cache, names
from baton.render.documents import Object

_ON, _OFF = "on", "off"
_CHOSEN = "chosen when it starts"
_POD_GPU = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class Given:
    """Settings by name, as the published ones are named: flags and keys of JSON flags, variables, fields."""

    flags: Mapping[str, str]
    env: Mapping[str, str]
    fields: Mapping[str, str]


def given(deployment: Deployment) -> Mapping[Where, Given]:
    """Return what each part is given.

    Raises   ConfigError for a release that the catalogue lacks, or what the recipe sets and the target decides
    """
    engine = load_engine(deployment.engine_name, deployment.engine_version)
    if not _is_for_a_cluster(deployment):
        return {role.value: _on_one_machine(deployment, role, engine) for role in Role}
    roles: dict[Where, Given] = {role.value: _of_group(engines.group(deployment, role), engine) for role in Role}
    gateway = next(each for each in frontend.objects(deployment) if each["kind"] == "Deployment")
    return {**roles, "frontend": _of_gateway(gateway), "deployment": Given({}, {}, _of_deployment(deployment))}


def flags(words: Sequence[str], engine: EngineCatalogue) -> Mapping[str, str]:
    """Return a command line's settings by full name; JSON values are taken apart, bare flags are "on" or "off"."""
    found: dict[str, str] = {}
    for written, values in _options(words):
        match = engine.flag(written)
        name, path = (match.name, match.path) if match is not None else (written, ())
        value = " ".join(values) or (_OFF if match is not None and match.negated else _ON)
        found |= _apart(".".join((name, *path)), value)
    return found


def _on_one_machine(deployment: Deployment, role: Role, engine: EngineCatalogue) -> Given:
    place = Place(
        host="127.0.0.1",
        http_port=names.HTTP_PORT,
        nixl_port=names.NIXL_PORT,
        dp_address="127.0.0.1",
        dp_rpc_port=names.DP_RPC_PORT,
    )
    command = serve_command(deployment, deployment.of_role(role)[0], place)
    ports = {"--port": _CHOSEN, "VLLM_NIXL_SIDE_CHANNEL_PORT": _CHOSEN}
    found = {"--model": command.argv[2], **flags(command.argv[3:], engine)}
    return Given(_with(found, ports), _with(command.env, ports), {})


def _with(found: Mapping[str, str], others: Mapping[str, str]) -> Mapping[str, str]:
    """The same settings, those among `others` with their value there."""
    return {name: others.get(name, value) for name, value in found.items()}


def _is_for_a_cluster(deployment: Deployment) -> bool:
    if deployment.hardware.accelerator == "cpu":
        return False
    try:
        model_cache.folder(deployment)
        frontend.refuse_keys_of_no_secret(deployment)
    except ConfigError:
        return False
    return True


def _of_group(group: Object, engine: EngineCatalogue) -> Given:
    template = group["spec"]["leaderWorkerTemplate"]
    pod = template.get("leaderTemplate", template["workerTemplate"])["spec"]
    container = pod["containers"][0]
    words = [word.replace("$$", "$") for word in container["args"]]
    env = {each["name"]: _variable(each) for each in container["env"]}
    shared = next(v["emptyDir"] for v in pod["volumes"] if v.get("emptyDir", {}).get("medium") == "Memory")
    fields = {
        "subComponentType": group["metadata"]["labels"][names.COMPONENT],
        "replicas": str(group["spec"]["replicas"]),
        "multinode.nodeCount": str(template["size"]),
        "sharedMemory.size": shared["sizeLimit"],
        **_resources(container["resources"]),
        **_of_pod(pod),
    }
    if "resourceClaims" in pod:
        fields["resourceClaims"] = ", ".join(
            f"{claim['name']} from {claim['resourceClaimTemplateName']}" for claim in pod["resourceClaims"]
        )
    return Given({"--model": words[1], **flags(words[2:], engine)}, env, fields)


def _of_gateway(gateway: Object) -> Given:
    pod = gateway["spec"]["template"]["spec"]
    container = pod["containers"][0]
    fields = {
        "replicas": str(gateway["spec"]["replicas"]),
        "frontend command": " ".join((*container["command"], container["args"][0])),
        **_of_pod(pod),
    }
    return Given({}, {}, fields)


def _of_deployment(deployment: Deployment) -> Mapping[str, str]:
    cache = deployment.cluster.model_cache
    fields = {"metadata.name": deployment.name, "pvcs": f"{cache.claim}, create: {json.dumps(cache.create)}"}
    if compute_domain.is_needed(deployment):
        spec = compute_domain.domain(deployment)["spec"]
        fields["ComputeDomain.numNodes"] = str(spec["numNodes"])
        fields["ComputeDomain.channel"] = spec["channel"]["resourceClaimTemplate"]["name"]
    return fields


def _of_pod(pod: Mapping[str, Any]) -> Mapping[str, str]:
    container = pod["containers"][0]
    mounts = [f"{m['name']} at {m['mountPath']}" for m in container["volumeMounts"] if m["name"] == model_cache.VOLUME]
    fields = {
        "image": container["image"],
        "volumeMounts": ", ".join(mounts),
        "imagePullSecrets": ", ".join(secret["name"] for secret in pod.get("imagePullSecrets", ())),
        "tolerations": _tolerations(pod.get("tolerations", ())),
        **{name: _probe(container[name]) for name in ("startupProbe", "livenessProbe") if name in container},
    }
    return {name: value for name, value in fields.items() if value}


def _resources(resources: Mapping[str, Any]) -> Mapping[str, str]:
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    fields = {
        "resources.limits.gpu": limits.get(_POD_GPU, ""),
        "resources.limits.custom": ", ".join(f"{name}: {n}" for name, n in limits.items() if name != _POD_GPU),
        "resources.cpu": requests.get("cpu", ""),
        "resources.memory": requests.get("memory", ""),
        "resources.claims": ", ".join(claim["name"] for claim in resources.get("claims", ())),
    }
    return {name: value for name, value in fields.items() if value}


def _tolerations(tolerations: Sequence[Mapping[str, str]]) -> str:
    """Taints with their effects: `dedicated=user-workload, NoSchedule and NoExecute`."""
    effects: dict[str, list[str]] = {}
    for each in tolerations:
        key = each.get("key", "every taint")
        taint = f"{key}={each['value']}" if "value" in each else key
        effects.setdefault(taint, []).append(each.get("effect", "every effect"))
    return "; ".join(f"{taint}, {' and '.join(of_taint)}" for taint, of_taint in effects.items())


def _probe(probe: Mapping[str, Any]) -> str:
    ask, failures = probe["httpGet"], probe["failureThreshold"]
    return (
        f"{ask['path']} on {ask['port']}, every {probe['periodSeconds']} s, timeout {probe['timeoutSeconds']} s, "
        f"{failures} times"
    )


def _variable(variable: Mapping[str, Any]) -> str:
    if "valueFrom" in variable:
        return str(variable["valueFrom"]["fieldRef"]["fieldPath"])
    return str(variable["value"]).replace("$$", "$")


def _options(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with the values that follow it; words before the first flag belong to none."""
    flag, values = "", list[str]()
    for word in words:
        if not word.startswith("--"):
            values.append(word)
            continue
        if flag:
            yield flag, values
        flag, values = word, []
    if flag:
        yield flag, values


def _apart(name: str, value: str) -> Mapping[str, str]:
    """A JSON object as one setting a key, `--flag.key.key`; any other value as it is."""
    try:
        keys = json.loads(value) if value.startswith("{") else None
    except ValueError:
        keys = None
    if not keys:
        return {name: value}
    found: dict[str, str] = {}
    for key, below in keys.items():
        found |= _apart(f"{name}.{key}", below if isinstance(below, str) else json.dumps(below))
    return found
