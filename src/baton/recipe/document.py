"""A YAML file read into a strict pydantic type, with errors that point at the line.

One file in, one frozen object out. Every fault of the file is reported in one go, each as
`file:line:column: field: what is wrong, the value, what is allowed`.
"""

from __future__ import annotations

import difflib
import io
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarbool import ScalarBoolean

from baton.base.errors import ConfigError


class Strict(BaseModel):
    """Base of every type a person writes: no coercion, no unknown key, no change after reading."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)


Document = TypeVar("Document", bound=BaseModel)

_UNUSABLE = re.compile("[\0\ud800-\udfff]")

_NOT_YAML = (YAMLError, ValueError, ArithmeticError, AttributeError, LookupError, TypeError, AssertionError)
"""What ruamel raises: its own for syntax, anything at all for a tag, date or number on what cannot be one."""


def load(path: Path, kind: type[Document]) -> Document:
    """Read `path` as a `kind`.

    Raises   ConfigError naming file, line, column, field, value and what is allowed, for every fault of the file
    """
    return parse(read_text(path, kind.__name__), kind, source=str(path))


def read_text(path: Path, kind: str) -> str:
    """Read a file that should be of a kind, such as Recipe.

    Raises   ConfigError for one that cannot be read
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot read it: {reason}; give the path of a {kind} file") from error


def parse(text: str, kind: type[Document], *, source: str) -> Document:
    """Read YAML `text` as a `kind`; `source` names it in errors.

    Raises   ConfigError as `load` does
    """
    try:
        tree = YAML(typ="rt").load(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark else source
        problem = str(error.problem or error).splitlines()[0]
        raise ConfigError(f"{where}: not valid YAML: {problem}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: nested too deeply") from error
    except _NOT_YAML as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from error
    if not isinstance(tree, Mapping):
        found = "nothing" if tree is None else type(tree).__name__
        raise ConfigError(f"{source}:1:1: expected a mapping of {kind.__name__} fields, found {found}")
    try:
        unusable = [_describe_text(loc, text, tree, source) for loc, text in _unusable(tree)]
        if unusable:
            raise ConfigError("\n".join(unusable))
        return kind.model_validate(_plain(tree))
    except RecursionError as error:
        raise ConfigError(f"{source}: nested too deeply") from error
    except ValidationError as error:
        lines = [_describe(fault, tree, kind, source) for fault in error.errors(include_url=False)]
        raise ConfigError("\n".join(lines)) from error


def _plain(node: Any) -> Any:
    """The same tree in builtin types: ruamel's carry positions and subclass int, float and str."""
    if isinstance(node, Mapping):
        return {_key(key): _plain(value) for key, value in node.items()}
    if isinstance(node, str):
        return str(node)
    if isinstance(node, Sequence):
        return [_plain(value) for value in node]
    if isinstance(node, (bool, ScalarBoolean)):
        return bool(node)
    if isinstance(node, int):
        return int(node)
    return float(node) if isinstance(node, float) else node


def _key(node: Any) -> Any:
    """A mapping's key; YAML also allows lists and mappings, which no field has as its name."""
    return str(node) if isinstance(node, (Mapping, Sequence)) else node


def _unusable(node: Any, loc: tuple[int | str, ...] = ()) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Texts that can be in no command line, variable or file: with a NUL, or half a surrogate pair."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _unusable(str(key), (*loc, key))
            yield from _unusable(value, (*loc, key))
    elif isinstance(node, str):
        if _UNUSABLE.search(node):
            yield loc, node
    elif isinstance(node, Sequence):
        for at, value in enumerate(node):
            yield from _unusable(value, (*loc, at))


def _describe_text(loc: tuple[int | str, ...], text: str, tree: Any, source: str) -> str:
    line, column = _position(tree, loc)
    field = ".".join(repr(part)[1:-1] if isinstance(part, str) else str(part) for part in loc)
    return (
        f"{source}:{line}:{column}: {field}: got {text[:80]!r}: no command line or file can hold a NUL or half a "
        "surrogate pair; take it out"
    )


def _describe(fault: ErrorDetails, tree: Any, kind: type[BaseModel], source: str) -> str:
    line, column = _position(tree, fault["loc"])
    field = ".".join(str(part) for part in fault["loc"]) or kind.__name__
    if fault["type"] == "extra_forbidden":
        allowed = _fields_at(kind, fault["loc"][:-1])
        close = difflib.get_close_matches(str(fault["loc"][-1]), allowed, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        problem = f"unknown key; {hint}allowed: {', '.join(sorted(allowed))}"
    elif fault["type"] == "missing":
        problem = "missing; it has no default"
    else:
        shown = "null" if fault["input"] is None else repr(fault["input"])
        message = _expected(fault, kind)
        problem = (
            message if fault["loc"] == () else f"got {shown if len(shown) < 80 else shown[:77] + '...'}: {message}"
        )
    return f"{source}:{line}:{column}: {field}: {problem}"


def _expected(fault: ErrorDetails, kind: type[BaseModel]) -> str:
    """What a value should be, in the words of YAML; for a text of the wrong form also what the field is."""
    message, given = fault["msg"].removeprefix("Value error, "), fault["input"]
    if fault["type"] in ("dict_type", "model_type"):
        return "expected a mapping, such as {key: value}"
    if fault["type"] in ("tuple_type", "list_type"):
        return "expected a list, such as [a, b]"
    if fault["type"] == "string_type" and isinstance(given, (int, float)):
        return f"{message}; put it in quotes"
    if fault["type"] == "string_pattern_mismatch":
        field = _class_at(kind, fault["loc"][:-1]).model_fields.get(str(fault["loc"][-1]))
        return f"{message} ({field.description})" if field is not None and field.description else message
    return message


def _position(node: Any, loc: tuple[int | str, ...]) -> tuple[int, int]:
    """Line and column, from 1, of the deepest part of `loc` that the file has."""
    position = (0, 0)
    for part in loc:
        try:
            position = (node.lc.item(part) if isinstance(part, int) else node.lc.key(part)) or position
            node = node[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return position[0] + 1, position[1] + 1


def _fields_at(kind: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at `loc`."""
    return list(_class_at(kind, loc).model_fields)


def _class_at(kind: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The model class at `loc`, by walking from `kind`."""
    for part in loc:
        field = kind.model_fields.get(str(part))
        inner = next((t for t in _classes(field.annotation) if issubclass(t, BaseModel)), None) if field else None
        if inner is not None:
            kind = inner
    return kind


def _classes(annotation: Any) -> list[type]:
    """Every class named in a type annotation, unions and containers opened."""
    if typing.get_origin(annotation) is None:
        return [annotation] if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) else []
    return [found for part in typing.get_args(annotation) for found in _classes(part)]
