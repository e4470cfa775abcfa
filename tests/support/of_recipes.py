"""Renders of the project's own recipes for Kubernetes, and the parts of them that tests ask about."""

from pathlib import Path
from typing import Any

import yaml

from baton.recipe.deployment import Deployment, resolve
from baton.recipe.document import parse
from baton.recipe.overrides import override
from baton.recipe.recipe import Recipe
from baton.recipe.workers import WorkersFile
from baton.render import kubernetes

ROOT = Path(__file__).parents[2]
HOPPER, GB200, CPU = "deepseek-r1-hopper-32gpu", "deepseek-r1-gb200-16gpu", "tiny-local-ep"
ON_CPU = ("model.path=/model-cache/tiny-r1",)
RDMA = ("cluster.rdma_resource=rdma/ib", "cluster.rdma_devices_per_node=8")

Object = dict[str, Any]
Objects = dict[tuple[str, str], Object]
"""by kind and name"""


def deployment(recipe: str, *settings: str) -> Deployment:
    """A recipe of the project with fields set, resolved."""
    path = ROOT / "recipes" / f"{recipe}.yaml"
    text = override(path.read_text(), settings, source=path.name)
    return resolve(parse(text, Recipe, source=path.name), path.parent)


def objects(recipe: str, *settings: str) -> Objects:
    """Every object of a render."""
    files = kubernetes.files(deployment(recipe, *settings))
    found = [each for name, text in files.items() if name.endswith(".yaml") for each in yaml.safe_load_all(text)]
    return {(each["kind"], each.get("metadata", {}).get("name", "")): each for each in found}


def group(found: Objects, role: str) -> Object:
    """The templates of a role."""
    (name,) = [name for kind, name in found if kind == "LeaderWorkerSet" and name.endswith(role)]
    return found["LeaderWorkerSet", name]["spec"]["leaderWorkerTemplate"]


def pod(found: Objects, role: str, part: str = "leaderTemplate") -> Object:
    """The spec of an engine's pod."""
    return group(found, role)[part]["spec"]


def container(found: Objects, role: str, part: str = "leaderTemplate") -> Object:
    """An engine's container."""
    (only,) = pod(found, role, part)["containers"]
    return only


def gateway(found: Objects) -> Object:
    """The gateway's Deployment."""
    (only,) = [each for (kind, _), each in found.items() if kind == "Deployment"]
    return only


def words(container: Object) -> list[str]:
    """The words of a container as they are written."""
    return [*container["command"], *container["args"]]


def env(container: Object) -> dict[str, Any]:
    """The variables of a container: a text, or where it comes from."""
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def workers_of(found: Objects) -> WorkersFile:
    """The workers file that the gateway is given."""
    (text,) = [each["data"]["workers.yaml"] for each in found.values() if "workers.yaml" in each.get("data", {})]
    return parse(text, WorkersFile, source="workers.yaml")
