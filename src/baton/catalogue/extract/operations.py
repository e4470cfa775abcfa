"""The pure operations the interpreter may perform, on values that it built itself."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from baton.catalogue.extract.values import EnvDefault, External, PartialList, Unknown, is_known

_BINARY: dict[type[ast.operator], Callable[[Any, Any], object]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.LShift: operator.lshift,
    ast.BitOr: operator.or_, ast.BitAnd: operator.and_,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], object]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not,
    ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_METHODS = {
    str: {"replace", "lower", "upper", "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "split", "join",
          "format", "startswith", "endswith", "title", "capitalize"},
    list: {"append", "extend", "remove", "insert", "index", "count", "copy", "sort", "pop"},
    dict: {"get", "items", "keys", "values", "pop", "update", "copy", "setdefault"},
    set: {"add", "union", "copy", "difference", "discard", "update"},
    tuple: {"index", "count"},
}  # fmt: skip
CONSTANTS: dict[str, object] = {"ssl.CERT_NONE": 0, "ssl.CERT_OPTIONAL": 1, "ssl.CERT_REQUIRED": 2}
_MAX_POWER = 64
_FAULTS = (TypeError, ValueError, KeyError, IndexError, AttributeError, ZeroDivisionError, OverflowError)


def sequence(items: Iterable[object]) -> list[object]:
    """Return a list; one that says so if members are unknown."""
    items = list(items)
    if any(isinstance(i, Unknown) for i in items):
        return PartialList(i for i in items if not isinstance(i, Unknown))
    return items


def as_set(items: Iterable[object]) -> object:
    """Return a set of the items, `Unknown` if one cannot be a member."""
    items = list(items)
    return set(items) if all(isinstance(i, Hashable) and not isinstance(i, Unknown) for i in items) else Unknown()


def put(target: dict[object, object], key: object, value: object) -> None:
    """Set a key if it is known and hashable."""
    if isinstance(key, Hashable) and not isinstance(key, Unknown):
        target[key] = value


def remove(target: object, key: object) -> None:
    """Delete a key of a dict if it is there."""
    if isinstance(target, dict) and isinstance(key, Hashable):
        target.pop(key, None)


def truth(value: object) -> bool | None:
    """Return whether a value is true; None if only running the code would tell."""
    if isinstance(value, EnvDefault):
        return None
    if isinstance(value, bool | int | float | str | list | tuple | dict | set) or value is None:
        return bool(value) if not isinstance(value, PartialList) or value else None
    return None if isinstance(value, Unknown | External) else True


def is_iterable(value: object) -> bool:
    """Say whether a value can be walked here."""
    return isinstance(value, list | tuple | set | dict | str)


def iterate(value: object) -> list[object]:
    """Return the items of a container, sets sorted; nothing for what is not one."""
    if isinstance(value, set):
        return sorted(value, key=repr)
    return list(value) if isinstance(value, list | tuple | dict | str) else []


def binary(op: type[ast.operator], left: object, right: object) -> object:
    """Return `left op right`; a list plus an unknown list stays a partly known list."""
    if op is ast.Add and isinstance(left, list) and isinstance(right, Unknown):
        return PartialList(left)
    if op is ast.Add and isinstance(right, list) and isinstance(left, Unknown):
        return PartialList(right)
    if op not in _BINARY or not (is_known(left) and is_known(right)):
        return Unknown()
    if op in {ast.Pow, ast.LShift} and (not isinstance(right, int) or right > _MAX_POWER):
        return Unknown()
    return _try(lambda: _BINARY[op](left, right))


def unary(op: type[ast.unaryop], value: object) -> object:
    """Return `op value`."""
    if op is ast.Not:
        known = truth(value)
        return Unknown() if known is None else not known
    return -value if op is ast.USub and isinstance(value, int | float) else Unknown()


def compare(op: type[ast.cmpop], left: object, right: object) -> object:
    """Return `left op right`."""
    if isinstance(left, Unknown | EnvDefault) or isinstance(right, Unknown | EnvDefault) or op not in _COMPARE:
        return Unknown()
    return _try(lambda: _COMPARE[op](left, right))


def index(value: object, key: Any) -> object:
    """Return `value[key]`."""
    if isinstance(value, str | list | tuple | dict):
        return _try(lambda: value[key])
    return Unknown()


def method(target: object, name: str, arguments: Sequence[object], keywords: dict[str, object]) -> object:
    """Return what a method of a string or container gives."""
    kind = next((k for k in _METHODS if isinstance(target, k)), None)
    if kind is None or name not in _METHODS[kind]:
        return Unknown()
    if kind is str and not all(map(is_known, arguments)):
        return Unknown()
    result = _try(lambda: getattr(target, name)(*arguments, **keywords))
    return list(result) if name in {"items", "keys", "values"} else result  # type: ignore[call-overload]


def builtin(  # noqa: PLR0911 - one arm a function
    name: str, arguments: Sequence[object], keywords: dict[str, object], iterable: Callable[[object], object]
) -> object:
    """Return what a builtin or a reader of the environment gives; `Unknown` for any other function."""
    first = iterable(arguments[0]) if arguments else None
    if name in {"os.getenv", "os.environ.get", "getenv"} and isinstance(first, str):
        return EnvDefault(first, arguments[1] if len(arguments) > 1 else keywords.get("default"))
    if name in {"str", "int", "float", "bool"}:
        if isinstance(first, EnvDefault):
            converted = builtin(name, [first.default], {}, iterable) if first.default is not None else None
            return EnvDefault(first.env, converted)
        convert: dict[str, Callable[[Any], object]] = {"str": str, "int": int, "float": float, "bool": bool}
        return _try(lambda: convert[name](first)) if isinstance(first, str | int | float) else Unknown()
    if name in {"list", "tuple", "sorted", "set", "frozenset"}:
        if not arguments:
            return {"list": list, "tuple": tuple, "set": set, "frozenset": set}[name]()
        if not is_iterable(first):
            return Unknown()
        items: list[Any] = iterate(first)
        if name == "sorted":
            return _try(lambda: sorted(items)) if isinstance(first, PartialList) is False else first
        return tuple(items) if name == "tuple" else as_set(items) if "set" in name else sequence(items)
    if name == "dict" and (not arguments or isinstance(first, dict)):
        return {**(first if isinstance(first, dict) else {}), **keywords}
    if name == "len" and is_known(first) and is_iterable(first):
        return len(iterate(first))
    if name == "type" and len(arguments) == 3 and isinstance(arguments[1], tuple):
        return arguments[1][0] if arguments[1] else Unknown()
    if name == "cast" or name.endswith("typing.cast"):
        return arguments[1] if len(arguments) > 1 else Unknown()
    if name.endswith("deepcopy") or name == "copy.copy":
        return first
    return Unknown()


def _try(function: Callable[[], object]) -> object:
    try:
        return function()
    except _FAULTS:
        return Unknown()
