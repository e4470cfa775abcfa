"""Built-in objects against Kubernetes' own schemas of a release, as the kubernetes-validate package carries them.

Strict: a field the release does not have is a fault, and so is a kind it does not have.
"""

from __future__ import annotations

import re
from functools import cache

import jsonschema
from kubernetes_validate.utils import all_versions, major_minor, schema_contents
from referencing import Registry, Resource

from support.objects import Object, ident, nulls

RELEASES = ("1.27", "1.30", "1.33", major_minor(all_versions()[-1]))
"""what rendered objects are held against: old ones still in use, and the newest there is"""


def faults(each: Object, release: str) -> list[str]:
    """What is wrong with an object; empty if nothing is. A kind that the release does not have is a fault."""
    validator = _validator(each["apiVersion"], each["kind"], release)
    if validator is None:
        return [f"{ident(each)}: Kubernetes {release} has no such kind"]
    found = [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(each)]
    return [f"{ident(each)}: {fault}" for fault in (*found, *(f"{path}: null" for path in nulls(each)))]


@cache
def _validator(api_version: str, kind: str, release: str) -> jsonschema.Draft202012Validator | None:
    folder = _folder(release)
    group, _, version = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.split(".")[0], version) if part)
    try:
        schema = schema_contents(f"{folder}/{name}.json", release)
    except FileNotFoundError:
        return None
    # File names leave out most of a group, so that a stranger's Deployment would be taken for the built-in one.
    if api_version not in schema["properties"]["apiVersion"]["enum"]:
        return None
    registry = Resource.from_contents(schema) @ _definitions(folder)
    return jsonschema.Draft202012Validator(schema, registry=registry)


@cache
def _definitions(folder: str) -> Registry:
    return Resource.from_contents(schema_contents(f"{folder}/_definitions.json", "")) @ Registry()


@cache
def _folder(release: str) -> str:
    full = next(version for version in all_versions() if re.match(rf"{re.escape(release)}(\.|$)", version))
    return f"kubernetes-json-schema/v{full}-local-strict"
