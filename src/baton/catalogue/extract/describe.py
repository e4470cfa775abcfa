"""Turns what the interpreter recorded into the plain data of the catalogue: one flag, one config field, one default."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence

from baton.catalogue.extract.config_classes import BOOLEAN_OPTIONAL, ConfigClasses, Field
from baton.catalogue.extract.values import (
    Argument,
    ClassRef,
    ConfigType,
    EnumMember,
    EnvDefault,
    External,
    FunctionRef,
    OptionalOf,
    PartialList,
    Unknown,
    is_known,
)

Data = dict[str, object]
_DEPRECATED = re.compile(
    r"(?:\bis|\bare|\bbeen|\bnow|^\W*|\[|\()\s*deprecated|will be (?:deprecated|removed)|no longer (?:used|supported)",
    re.IGNORECASE,
)
_REMEDY = re.compile(r"^(?:please )?(?:use|instead)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!;])\s+(?=[A-Z`-]|use )|\n\s*\n")
_TYPES = {"json.loads": "json", "union_dict_and_str": "json_or_str", "json": "json"}
SUPPRESS = External("argparse.SUPPRESS")


class _Omitted(enum.Enum):
    OMITTED = enum.auto()


OMITTED = _Omitted.OMITTED


def flag(argument: Argument, configs: dict[str, ClassRef]) -> tuple[str, Data] | None:
    """Return the longest option string and what the catalogue says of a flag; None for a positional argument.

    Config classes that its value is parsed as are added to `configs`.
    """
    options = [n for n in argument.names if n.startswith("-")]
    if not options:
        return None
    name = next((o for o in options if o.startswith("--")), options[0])
    out: Data = {"aliases": sorted(o for o in options if o != name), "group": argument.group}
    keywords = argument.keywords
    action = keywords.get("action")
    if action == BOOLEAN_OPTIONAL:
        out |= {"type": "bool", "negation": True}
    elif action in {"store_true", "store_false"} or action in {"help", "version"}:
        out |= {"type": "bool", "bare": True}
    else:
        out |= _typed(keywords.get("type", External("custom") if isinstance(action, ClassRef) else str), configs)
        out["repeats"] = action == "append"
    for key in ("nargs", "const"):
        if is_known(keywords.get(key)):
            out[key] = keywords.get(key)
    out |= _choices(keywords)
    implied = {"store_true": False, "store_false": True}.get(action) if isinstance(action, str) else None
    out |= default(keywords.get("default", implied))
    out["deprecated"] = deprecation(keywords)
    out["hidden"] = keywords.get("help") == SUPPRESS
    return name, _compact(out)


def field(classes: ConfigClasses, spec: Field, configs: dict[str, ClassRef]) -> Data:
    """Return what the catalogue says of one key of a config class."""
    keywords = classes.field_keywords(spec)
    out: Data = {"type": "bool"} if keywords.get("action") == BOOLEAN_OPTIONAL else _typed(keywords["type"], configs)
    if "nargs" in keywords:
        out = {"type": "list", "items": out["type"]} | {k: v for k, v in out.items() if k == "optional"}
    if any(h.kind == "none" for h in spec.hints):
        out["optional"] = True
    if out["type"] == "str" and not any(h.kind in {"str", "literal", "enum"} for h in spec.hints):
        out["type"] = "any"
    out |= _choices(keywords) | default(spec.default)
    out["deprecated"] = deprecation({"help": spec.doc})
    return _compact(out)


def default(value: object) -> Data:
    """Return the default as {"default": value}, or its source where only running the code would give it.

    Nothing where there is none; {"env": NAME} too where an environment variable overrides it.
    """
    if isinstance(value, EnvDefault):
        return {"env": value.env} | default(value.default)
    plain = _plain(value)
    if plain is OMITTED:
        return {"default_source": value.text} if isinstance(value, Unknown) and value.text != "required" else {}
    return {"default": plain}


def deprecation(keywords: Data) -> str:
    """Return the sentences of a flag's help that speak of its deprecation, "" if there are none."""
    text = keywords.get("help")
    said = deprecation_in(text if isinstance(text, str) else "")
    if said:
        return said
    if keywords.get("deprecated") is True:
        return "deprecated"
    return "deprecated" if "deprecat" in str(getattr(keywords.get("action"), "name", "")).lower() else ""


def deprecation_in(text: str) -> str:
    """Return the sentences of a text that speak of deprecation, and the one after each if it names the remedy."""
    said: list[str] = []
    for sentence in (" ".join(s.split()) for s in _SENTENCE.split(text)):
        if _DEPRECATED.search(sentence) or (said and _REMEDY.match(sentence)):
            said.append(sentence)
    return " ".join(said)


def _typed(kind: object, configs: dict[str, ClassRef]) -> Data:
    if isinstance(kind, OptionalOf):
        return _typed(kind.inner, configs) | {"optional": True}
    if isinstance(kind, ConfigType):
        configs[kind.config.name] = kind.config
        return {"type": "config", "config": kind.config.name}
    if isinstance(kind, type):
        return {"type": kind.__name__}
    if isinstance(kind, External):
        return {"type": _TYPES.get(kind.name, kind.name.rsplit(".", 1)[-1])}
    if isinstance(kind, FunctionRef | ClassRef):
        return {"type": "custom" if kind.name == "<lambda>" else kind.name.strip("_")}
    return {"type": "custom"}


def _choices(keywords: Data) -> Data:
    out: Data = {}
    for key in ("choices", "known"):
        values = keywords.get(key)
        if isinstance(values, dict):
            values = list(values)
        if isinstance(values, set):
            values = sorted(values, key=str)
        if isinstance(values, list | tuple) and values:
            plain = [v for v in map(_plain, values) if v is not OMITTED and v is not None]
            out["known" if isinstance(values, PartialList) else key] = plain
    return out


def _plain(value: object) -> object:
    """Return a value as JSON data, `OMITTED` if it is not static."""
    if isinstance(value, EnumMember):
        return value.label
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, list | tuple | set) and is_known(value):
        items = [_plain(v) for v in (sorted(value, key=str) if isinstance(value, set) else value)]
        return OMITTED if OMITTED in items else items
    if isinstance(value, dict) and is_known(value):
        out = {str(k): _plain(v) for k, v in value.items()}
        return OMITTED if OMITTED in out.values() else out
    if isinstance(value, EnvDefault):
        return _plain(value.default)
    return OMITTED


def _compact(out: Data) -> Data:
    """Drop what says nothing: empty strings and lists, false marks. A default stays, whatever it is."""
    dull: Sequence[object] = ("", [], False, None)
    return {k: v for k, v in out.items() if k == "default" or not any(v is d or (v == d and v != 0) for d in dull)}
