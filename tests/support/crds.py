"""Custom resources against the schemas of their CustomResourceDefinitions, as an API server would hold them.

A structural schema is not quite JSON Schema. What this does of it: unknown fields are faults (a server drops them
without a word), defaults are filled in, and the types, required fields, patterns, enums, bounds and list-map keys are
checked. Not done: CEL rules (x-kubernetes-validations) and formats.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from support import beside
from support.objects import Object, ident

Schema = dict[str, Any]

_ROOT = ("apiVersion", "kind", "metadata")


def definitions() -> list[Object]:
    """Every CustomResourceDefinition there is here; skips the test where there are none."""
    return _read(beside.folder("crds", "BATON_CRDS"))


@cache
def _read(folder: Path) -> list[Object]:
    return [
        each
        for path in sorted(folder.glob("*.yaml"))
        for each in yaml.load_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    ]


def kinds() -> set[tuple[str, str]]:
    """The API versions and kinds that the definitions have."""
    return {
        (f"{each['spec']['group']}/{version['name']}", each["spec"]["names"]["kind"])
        for each in definitions()
        for version in each["spec"]["versions"]
        if version["served"]
    }


def faults(each: Object) -> list[str]:
    """What is wrong with a custom resource; empty if nothing is."""
    schema = _schema(each["apiVersion"], each["kind"])
    if schema is None:
        return [f"{ident(each)}: no CustomResourceDefinition has such a kind"]
    filled = copy.deepcopy(each)
    found = [f"{path}: unknown field; the server would drop it" for path in _unknown(each, schema, "")]
    _fill(filled, schema)
    found += [f"{error.json_path}: {error.message[:300]}" for error in _validator(*_key(each)).iter_errors(filled)]
    return [f"{ident(each)}: {fault}" for fault in found]


def _key(each: Object) -> tuple[str, str]:
    return each["apiVersion"], each["kind"]


@cache
def _schema(api_version: str, kind: str) -> Schema | None:
    group, _, name = api_version.partition("/")
    for each in definitions():
        spec = each["spec"]
        if (spec["group"], spec["names"]["kind"]) == (group, kind):
            for version in spec["versions"]:
                if version["name"] == name and version["served"]:
                    schema: Schema = version["schema"]["openAPIV3Schema"]
                    return schema
    return None


def _unknown(value: Any, schema: Schema, path: str) -> Iterator[str]:
    """The paths of fields that the schema does not name."""
    if isinstance(value, list):
        for at, entry in enumerate(value):
            yield from _unknown(entry, schema.get("items", {}), f"{path}[{at}]")
    if not isinstance(value, dict):
        return
    properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
    is_resource = not path or schema.get("x-kubernetes-embedded-resource")
    for key, entry in value.items():
        if is_resource and key in _ROOT:
            continue
        if key in properties:
            yield from _unknown(entry, properties[key], f"{path}.{key}")
        elif isinstance(rest, dict):
            yield from _unknown(entry, rest, f"{path}.{key}")
        elif rest is not True and not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}.{key}"


def _fill(value: Any, schema: Schema) -> None:
    """Put defaults where a field is missing."""
    if isinstance(value, list):
        for entry in value:
            _fill(entry, schema.get("items", {}))
    if not isinstance(value, dict):
        return
    for key, field in schema.get("properties", {}).items():
        if "default" in field and key not in value:
            value[key] = copy.deepcopy(field["default"])
    rest = schema.get("additionalProperties")
    for key, entry in value.items():
        _fill(entry, schema.get("properties", {}).get(key, rest if isinstance(rest, dict) else {}))


@cache
def _validator(api_version: str, kind: str) -> Any:
    schema = _schema(api_version, kind)
    assert schema is not None
    return _Structural(_json_schema(schema))


def _json_schema(schema: Schema) -> Schema:
    """A structural schema in JSON Schema's words."""
    found = {key: value for key, value in schema.items() if key not in ("description", "format", "default")}
    for key in ("properties", "patternProperties"):
        if key in found:
            found[key] = {name: _json_schema(field) for name, field in found[key].items()}
    for key in ("items", "additionalProperties", "not"):
        if isinstance(found.get(key), dict):
            found[key] = _json_schema(found[key])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in found:
            found[key] = [_json_schema(part) for part in found[key]]
    if found.get("x-kubernetes-int-or-string"):
        found.pop("anyOf", None)
        found["type"] = ["integer", "string"]
    if found.get("nullable"):
        found = {"anyOf": [{"type": "null"}, {key: value for key, value in found.items() if key != "nullable"}]}
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        if found.pop(exclusive, None) is True:
            found[exclusive] = found.pop(bound)
    return found


def _list_type(_: Any, kind: str, value: Any, schema: Mapping[str, Any]) -> Iterator[jsonschema.ValidationError]:
    """Entries of a set, and keys of a list that is a map, are there once."""
    if not isinstance(value, list) or kind == "atomic":
        return
    keys = schema.get("x-kubernetes-list-map-keys")
    seen: set[str] = set()
    for entry in value:
        word = json.dumps([entry.get(key) for key in keys] if keys else entry, sort_keys=True)
        if word in seen:
            yield jsonschema.ValidationError(f"{word} is there twice")
        seen.add(word)


_Structural = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"x-kubernetes-list-type": _list_type})
