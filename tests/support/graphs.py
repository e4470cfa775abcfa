"""Recipes rendered as DynamoGraphDeployments, and each component's pod whichever version of the API it stands in."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from baton.recipe.deployment import Deployment, resolve
from baton.recipe.document import parse
from baton.recipe.overrides import override
from baton.recipe.recipe import Recipe
from baton.render import dynamo

RECIPES = Path(__file__).parents[2] / "recipes"
HOPPER, GB200, SMALL_PREFILL = "deepseek-r1-hopper-32gpu", "deepseek-r1-gb200-16gpu", "deepseek-r1-gb200-2p4-1d8"
OURS = sorted(path.stem for path in RECIPES.glob("deepseek-r1-*.yaml"))
VERSIONS: tuple[dynamo.ApiVersion, ...] = ("v1alpha1", "v1beta1")

Object = dict[str, Any]


def deployment(stem: str = HOPPER, *settings: str, vllm: str | None = None) -> Deployment:
    """One of our recipes with fields set, for the vLLM that its Dynamo holds, or another."""
    source = RECIPES / f"{stem}.yaml"
    recipe = parse(override(source.read_text(), settings, source=str(source)), Recipe, source=str(source))
    version = vllm or dynamo.vllm_of(recipe.cluster.dynamo.version)
    return resolve(
        recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"version": version})}), source.parent
    )


@cache
def files(stem: str, version: dynamo.ApiVersion, *settings: str) -> dict[str, str]:
    """The files of a recipe."""
    return dynamo.files(deployment(stem, *settings), version)


def objects(rendered: dict[str, str]) -> list[Object]:
    """All objects of all files, but the kustomization."""
    return [
        each for name, text in rendered.items() if name != "kustomization.yaml" for each in yaml.safe_load_all(text)
    ]


def graph(stem: str, version: dynamo.ApiVersion, *settings: str) -> Object:
    """The graph of a recipe."""
    found: Object = yaml.safe_load(files(stem, version, *settings)["deploy.yaml"])
    return found


def component(of: Object, name: str) -> Object:
    """A service or component by its name."""
    spec = of["spec"]
    found: Object = (
        spec["services"][name] if "services" in spec else next(c for c in spec["components"] if c["name"] == name)
    )
    return found


def pod(of: Object, name: str) -> Object:
    """The pod's spec that a component writes; without what v1alpha1 says elsewhere."""
    each = component(of, name)
    found: Object = each["extraPodSpec"] if "extraPodSpec" in each else each["podTemplate"]["spec"]
    return found


def main(of: Object, name: str) -> Object:
    """The main container of a component, with what v1alpha1 says of it outside of the container."""
    each, spec = component(of, name), pod(of, name)
    if "mainContainer" not in spec:
        (found,) = spec["containers"]
        return dict(found)
    beside = {"env": each.get("envs", []), "resources": each.get("resources", {})}
    return {**beside, **spec["mainContainer"], **{p: each[p] for p in ("livenessProbe",) if p in each}}


def words(of: Object, name: str) -> list[str]:
    """Every word of a component's command."""
    container = main(of, name)
    return [*container["command"], *container["args"]]


def value(args: Sequence[str], flag: str) -> str:
    """The word behind a flag that is there once."""
    (at,) = [at for at, word in enumerate(args) if word == flag]
    return args[at + 1]


def env(of: Object, name: str) -> dict[str, Any]:
    """The variables of a component's main container: text, or the field of the pod."""
    return {
        each["name"]: each.get("value", each.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath"))
        for each in main(of, name)["env"]
    }
