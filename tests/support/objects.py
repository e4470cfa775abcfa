"""The Kubernetes objects of rendered files, read as both YAML 1.1 and YAML 1.2 have it.

Readers in the field are of either kind (PyYAML is 1.1, most of Go's YAML is between the two), so a text that they read
differently is a fault.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import yaml
from ruamel.yaml import YAML

Object = dict[str, Any]

KUSTOMIZATION = "kustomization.yaml"


def objects(files: Mapping[str, str]) -> list[Object]:
    """Every object that `kubectl apply -k` would apply, of the files that are rendered."""
    return [each for name in manifests(files) for each in documents(files[name])]


def manifests(files: Mapping[str, str]) -> list[str]:
    """The names of the files that hold objects: what the kustomization lists, else every YAML file."""
    if KUSTOMIZATION not in files:
        return sorted(name for name in files if name.endswith((".yaml", ".yml")))
    return list(documents(files[KUSTOMIZATION])[0]["resources"])


def documents(text: str) -> list[Any]:
    """The YAML documents of a text; an assertion if the two YAMLs differ about them."""
    found = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
    assert exact(found) == _of_1_2(text), "YAML 1.1 and 1.2 read different things"
    return found


@lru_cache(maxsize=256)
def _of_1_2(text: str) -> Any:
    return exact(list(YAML(typ="safe", pure=True).load_all(io.StringIO(text))))


def exact(value: Any) -> Any:
    """The value with its types, so that 1, 1.0, True and "1" all differ."""
    if isinstance(value, Mapping):
        return {(type(key).__name__, key): exact(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [exact(entry) for entry in value]
    return type(value).__name__, repr(value)


def named(found: list[Object], kind: str) -> dict[str, Object]:
    """The objects of a kind, by name."""
    return {each["metadata"]["name"]: each for each in found if each["kind"] == kind}


def ident(each: Object) -> str:
    """What an error calls an object."""
    return f"{each.get('apiVersion')} {each.get('kind')} {each.get('metadata', {}).get('name')}"


def nulls(value: Any, path: str = "") -> Iterator[str]:
    """Where a value is null: a field that somebody forgot to fill, which most schemas let pass."""
    if value is None:
        yield path
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from nulls(entry, f"{path}.{key}")
    elif isinstance(value, list):
        for at, entry in enumerate(value):
            yield from nulls(entry, f"{path}[{at}]")


def pod_templates(each: Object) -> list[Object]:
    """The pods that a custom resource has in it, each as a PodTemplate: a kind that every check of pods knows."""
    name, spec = each["metadata"]["name"], each.get("spec", {})
    found: dict[str, Object] = {}
    if each["kind"] == "LeaderWorkerSet":
        group = spec["leaderWorkerTemplate"]
        found = {part.lower(): group[part] for part in ("leaderTemplate", "workerTemplate") if part in group}
    elif each["kind"] == "DynamoGraphDeployment":
        found = {component["name"]: component["podTemplate"] for component in spec.get("components", [])}
        found |= {key: _of_service(service) for key, service in spec.get("services", {}).items()}
    namespace = each["metadata"].get("namespace", "default")
    return [
        {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": f"{name}-{part}", "namespace": namespace},
            "template": template,
        }
        for part, template in found.items()
    ]


def _of_service(service: Object) -> Object:
    """The pod of a v1alpha1 service as Dynamo's operator puts it together, as far as what is written there goes."""
    spec = dict(service["extraPodSpec"])
    main = {"name": "main", **spec.pop("mainContainer"), "env": service.get("envs", [])}
    claims = [mount["name"] for mount in service.get("volumeMounts", [])]
    volumes = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
    return {
        "metadata": service["extraPodMetadata"],
        "spec": {**spec, "containers": [main], "volumes": [*spec.get("volumes", []), *volumes]},
    }
