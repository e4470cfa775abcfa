"""A word read as the type a flag, a key or a variable has; what the engine's parser would say if it is not one."""

from __future__ import annotations

import json
import re
from typing import Any

from baton.catalogue.engine import Flag, Setting, Variable

_HUMAN = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])", re.ASCII)
_SCALE = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_TRUE, _FALSE = ("1", "true", "yes", "on", "t", "y"), ("0", "false", "no", "off", "f", "n")
_BOOL_WORDS = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}


def of_word(setting: Setting, text: str) -> Any:
    """Return what a word of the command line means to a flag.

    Raises   ValueError, saying what is wrong in one line, for a word that the parser would refuse
    """
    if setting.optional and text in ("None", ""):
        return None
    value = _read(setting, text)
    if isinstance(setting, Flag) and setting.folded and isinstance(value, str):
        value = value.lower().replace("-", "_")
    if setting.choices and value not in setting.choices:
        raise ValueError(f"{text!r} is not one of {listed(setting.choices)}")
    return value


def of_json(setting: Setting, value: Any) -> Any:
    """Return what a JSON value means to a key of a config; pydantic reads "1000" as a number and "False" as a bool.

    Raises   ValueError as `of_word` does
    """
    if value is None:
        if setting.optional:
            return None
        raise ValueError("null is not allowed")
    if setting.type == "bool" and isinstance(value, str) and value.lower() in _BOOL_WORDS:
        return _BOOL_WORDS[value.lower()]
    if setting.type == "bool" and not isinstance(value, bool) and value not in (0, 1):
        raise ValueError(f"{value!r} is not true or false")
    if setting.type in ("int", "float"):
        return _json_number(setting.type, value)
    if setting.choices and value not in setting.choices:
        raise ValueError(f"{value!r} is not one of {listed(setting.choices)}")
    if setting.type == "str" and not isinstance(value, str) and not setting.choices:
        raise ValueError(f"{value!r} is not a string")
    return value


def of_variable(variable: Variable, text: str) -> str | None:
    """Return why an engine would refuse a variable's value; None if it takes it, or what it takes is not known."""
    if variable.choices:
        allowed = [str(c) for c in variable.choices]
        is_in = text.lower() in [a.lower() for a in allowed] if variable.any_case else text in allowed
        if not is_in and not (variable.optional and text == ""):
            return f"{text!r} is not one of {listed(variable.choices)}"
    reader = {"int": int, "float": float}.get(variable.type)
    if reader is not None:
        try:
            reader(text)
        except ValueError:
            return f"{text!r} is not a {'whole ' if reader is int else ''}number"
    return None


def listed(choices: Any, limit: int = 12) -> str:
    """Return choices as a person reads them, the first `limit` of them."""
    shown = ", ".join(str(c) for c in choices[:limit])
    return shown if len(choices) <= limit else f"{shown} and {len(choices) - limit} more"


def _read(setting: Setting, text: str) -> Any:
    kind = setting.type
    if kind in ("int", "float"):
        try:
            return int(text) if kind == "int" else float(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a {'whole ' if kind == 'int' else ''}number") from None
    if kind.startswith("human_readable_int"):
        return _human(text, kind.endswith("_or_auto"))
    if kind in ("json", "config", "json_or_str"):
        try:
            return json.loads(text)
        except ValueError as error:
            if kind == "json_or_str":
                return text
            raise ValueError(f"not JSON: {error}") from None
    return text


def _human(text: str, or_auto: bool) -> int:
    if or_auto and text.lower() in ("auto", "-1"):
        return -1
    match = _HUMAN.fullmatch(text)
    if match is not None:
        number, unit = match.groups()
        if unit.isupper() and "." in number:
            raise ValueError(f"{text!r}: a binary unit ({unit}) takes no decimal point; write it with {unit.lower()}")
        return int(float(number) * _SCALE[unit])
    try:
        return int(text)
    except ValueError:
        allowed = "a whole number, or one with k, m, g, t (thousands) or K, M, G, T (1024s)"
        raise ValueError(f"{text!r} is not {allowed}") from None


def _json_number(kind: str, value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{value!r} is not a number") from None
    if kind == "int" and not number.is_integer():
        raise ValueError(f"{value!r} is not a whole number")
    return int(number) if kind == "int" else number
