"""vLLM's config dataclasses: their fields, and the argparse keywords `get_kwargs` makes of them.

The rules are those of `vllm.engine.arg_utils._compute_kwargs`, which turns the annotation and the default of each field
into a flag; they are stated here once and hold for 0.11 to 0.33 (checked against the real parser of the installed one).
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from baton.catalogue.extract.hints import Hint, HintReader
from baton.catalogue.extract.interpreter import Interpreter, field_default
from baton.catalogue.extract.values import ClassRef, ConfigType, External, FieldValue, OptionalOf, Unknown

_KINDS: dict[str, object] = {"bool": bool, "int": int, "float": float, "str": str}
_ARG_UTILS = "vllm.engine.arg_utils"
BOOLEAN_OPTIONAL = External("argparse.BooleanOptionalAction")


@dataclass(frozen=True)
class Field:
    """One field of a config class; `doc` is the string under it, `is_init` whether a caller may pass it."""

    name: str
    hints: tuple[Hint, ...]
    default: object
    doc: str
    is_init: bool
    owner: ClassRef


class ConfigClasses:
    """Reads config classes of one package."""

    def __init__(self, interpreter: Interpreter, reader: HintReader) -> None:
        self._interpreter = interpreter
        self._reader = reader
        self._human_ints: dict[str, str] | None = None

    def fields(self, of: ClassRef) -> list[Field]:
        """Return the fields of a class, those of its bases first, in the order of the dataclass."""
        found: dict[str, Field] = {}
        for base in self._interpreter.bases(of):
            found.update({f.name: f for f in self.fields(base)})
        body = of.node.body
        for at, node in enumerate(body):
            if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
                continue
            hints = self._reader.read(node.annotation, of.module)
            if Hint("classvar") in hints:
                continue
            value = node.value
            written = Unknown("required") if value is None else self._interpreter.evaluate(value, of.module, {})
            under = body[at + 1] if at + 1 < len(body) else None
            doc = under.value.value if isinstance(under, ast.Expr) and isinstance(under.value, ast.Constant) else ""
            is_init = not (isinstance(written, FieldValue) and written.keywords.get("init") is False)
            found[node.target.id] = Field(
                node.target.id, hints, field_default(self._interpreter, written), str(doc), is_init, of
            )
        return list(found.values())

    def keywords(self, of: ClassRef) -> dict[str, dict[str, object]]:
        """Return what `get_kwargs` returns: argparse keywords by field name."""
        return {f.name: self.field_keywords(f) for f in self.fields(of) if not _is_init_var(f)}

    def field_keywords(self, field: Field) -> dict[str, object]:
        """Return the argparse keywords of one field: default, help, type, choices, nargs, action; `known` for values
        that the help lists and the parser does not enforce.
        """
        kinds = {h.kind for h in field.hints}
        out: dict[str, object] = {"default": field.default, "help": field.doc, "hints": field.hints}
        config = next((h.of for h in field.hints if h.kind == "config"), None)
        if config is not None:
            out["type"] = ConfigType(config)
        elif kinds == {"bool", "str", "none"} and self._bare_flags():
            out |= {"type": str, "nargs": "?", "const": True}
        elif "bool" in kinds:
            out["action"] = BOOLEAN_OPTIONAL
        elif "literal" in kinds:
            out |= _literal(field.hints)
        elif container := next((k for k in ("tuple", "list", "set") if k in kinds), ""):
            out |= _collection(field.hints, container)
        elif "int" in kinds:
            out["type"] = self._int_type(field.name)
        elif "float" in kinds:
            out["type"] = float
        elif "dict" in kinds:
            others = kinds - {"dict", "none", "any", "var"}
            out["type"] = External("union_dict_and_str" if others else "json.loads")
        else:
            out["type"] = str
        known = [v for h in field.hints if h.kind == "enum" for v in h.values]
        if known:
            out["known"] = known
        if "none" in kinds and "bool" not in kinds:
            out["type"] = OptionalOf(out["type"])
            if isinstance(choices := out.get("choices"), list):
                out["choices"] = [*choices, None]
        return out

    def _bare_flags(self) -> bool:
        """Say whether this version lets a flag of bool, str or none stand without a value."""
        return "type_hints == {bool, str, type(None)}" in self._interpreter.sources.text(_ARG_UTILS)

    def _int_type(self, name: str) -> object:
        """Return int, or the converter that also takes 1k and 2M, for the fields the engine lists by name."""
        if self._human_ints is None:
            self._human_ints = {}
            definition = self._interpreter.sources.define(_ARG_UTILS, "_compute_kwargs")
            tree = definition.node if definition else None
            for node in ast.walk(tree) if tree else []:
                if isinstance(node, ast.Set | ast.Tuple):
                    names = [e.value for e in node.elts if isinstance(e, ast.Constant) and isinstance(e.value, str)]
                    self._human_ints.update(dict.fromkeys(names, "human_readable_int"))
            if "human_readable_int_or_auto" in self._interpreter.sources.text(_ARG_UTILS):
                self._human_ints["max_model_len"] = "human_readable_int_or_auto"
        return External(self._human_ints[name]) if name in self._human_ints else int


def _literal(hints: Sequence[Hint]) -> dict[str, object]:
    values = next(h.values for h in hints if h.kind == "literal")
    is_closed = not any(h.kind == "str" for h in hints)
    ordered = sorted(values) if all(isinstance(v, type(values[0])) for v in values) else list(values)  # type: ignore[type-var]
    return {"type": type(values[0]), "choices" if is_closed else "known": ordered}


def _collection(hints: Sequence[Hint], kind: str) -> dict[str, object]:
    items = next(h.items for h in hints if h.kind == kind)
    is_fixed = kind == "tuple" and not any(i[0].kind == "ellipsis" for i in items)
    out: dict[str, object] = {"type": str, "nargs": len(items) if is_fixed else "+"}
    element = items[0] if items else ()
    if len(element) == 1 and element[0].kind == "literal":
        out |= _literal(element)
    elif len(element) == 1:
        out["type"] = _KINDS.get(element[0].kind, str)
    return out


def _is_init_var(field: Field) -> bool:
    return any(
        isinstance(n, ast.AnnAssign)
        and isinstance(n.target, ast.Name)
        and n.target.id == field.name
        and ast.unparse(n.annotation).startswith("InitVar")
        for n in field.owner.node.body
    )
