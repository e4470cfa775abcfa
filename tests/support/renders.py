"""Recipes rendered as `baton render` does it, and every fault that all the checks of schemas know in the result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from baton.recipe.deployment import Deployment, resolve
from baton.recipe.recipe import Recipe, load_recipe
from baton.render import dynamo, kubernetes, local
from support import crds
from support import kubernetes as built_in
from support.objects import KUSTOMIZATION, Object, documents, objects, pod_templates

RECIPES = Path(__file__).parents[2] / "recipes"
PUBLISHED = sorted(path.stem for path in RECIPES.glob("deepseek-*.yaml"))
CLUSTER_TARGETS = ("kubernetes", "dynamo", "dynamo-v1beta1")
TARGETS = (*CLUSTER_TARGETS, "local")

CUSTOM = {
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"),
    ("nvidia.com/v1alpha1", "DynamoGraphDeployment"),
    ("nvidia.com/v1beta1", "DynamoGraphDeployment"),
    ("resource.nvidia.com/v1beta1", "ComputeDomain"),
    ("monitoring.coreos.com/v1", "PodMonitor"),
}
"""every kind that may be rendered and is not Kubernetes' own"""

FIRST_WITH_CLAIMS = (1, 32)
"""the first release with the API that NVIDIA's DRA driver needs (its README): pods that claim a ComputeDomain say so"""


def deployment(recipe: Recipe, target: str, folder: Path = RECIPES) -> Deployment:
    """What a recipe is for a target: Dynamo's releases bring a vLLM of their own."""
    if target.startswith("dynamo"):
        engine = recipe.engine.model_copy(update={"version": dynamo.vllm_of(recipe.cluster.dynamo.version)})
        recipe = recipe.model_copy(update={"engine": engine})
    return resolve(recipe, folder)


def render(recipe: Recipe, target: str, folder: Path = RECIPES) -> dict[str, str]:
    """The files of a target, relative path to text."""
    given = deployment(recipe, target, folder)
    match target:
        case "kubernetes":
            return kubernetes.files(given)
        case "dynamo":
            return dynamo.files(given, "v1alpha1")
        case "dynamo-v1beta1":
            return dynamo.files(given, "v1beta1")
        case _:
            return local.files(given)


@cache
def published(stem: str, target: str) -> Mapping[str, str]:
    """The files of one of our own recipes for a target."""
    return render(load_recipe(RECIPES / f"{stem}.yaml"), target)


def faults(files: Mapping[str, str], releases: Iterable[str] = built_in.RELEASES) -> list[str]:
    """What is wrong with rendered objects, by the schemas of some Kubernetes releases and of custom kinds."""
    found: list[str] = []
    for each in objects(files):
        if (each["apiVersion"], each["kind"]) in CUSTOM:
            found += crds.faults(each)
            for template in pod_templates(each):
                found += _built_in(template, releases)
        else:
            found += _built_in(each, releases)
    return found


def unlisted(files: Mapping[str, str]) -> set[str]:
    """YAML files that the kustomization does not apply, and names of it that are no file."""
    listed = set(documents(files[KUSTOMIZATION])[0]["resources"])
    return listed ^ {name for name in files if name.endswith(".yaml") and name != KUSTOMIZATION}


def _built_in(each: Object, releases: Iterable[str]) -> list[str]:
    claims = "resourceClaims" in each.get("template", {}).get("spec", {})
    return [
        fault
        for release in releases
        if not claims or tuple(int(number) for number in release.split(".")) >= FIRST_WITH_CLAIMS
        for fault in built_in.faults(each, release)
    ]
