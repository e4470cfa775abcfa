"""Type annotations as data: unions flattened, aliases followed, literals spelled out."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from baton.catalogue.extract.interpreter import Interpreter
from baton.catalogue.extract.values import ClassRef, EnumMember

_BUILTIN = {"bool", "int", "float", "str", "bytes"}
_CONTAINERS = {
    "list": "list", "List": "list", "Sequence": "list", "dict": "dict", "Dict": "dict", "Mapping": "dict",
    "set": "set", "Set": "set", "tuple": "tuple", "Tuple": "tuple",
}  # fmt: skip
_TRANSPARENT = {"Annotated", "SkipValidation", "InitVar", "Required", "NotRequired", "Final"}
MAX_DEPTH = 12


@dataclass(frozen=True)
class Hint:
    """One member of a flattened union.

    `kind` is none, bool, int, float, str, bytes, list, dict, set, tuple, literal, config, enum, class, any or var.
    `values` holds a literal's values or an enum's names, `items` the hints of a container's members (`...` as kind
    ellipsis), `of` the class of a config, enum or class.
    """

    kind: str
    values: tuple[object, ...] = ()
    items: tuple[tuple[Hint, ...], ...] = ()
    of: ClassRef | None = None


class HintReader:
    """Reads annotations of the wheel's modules."""

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter

    def read(self, node: ast.expr, module: str, depth: int = 0) -> tuple[Hint, ...]:
        """Return the members of the annotation's union, without duplicates, in the order written."""
        members: list[Hint] = []
        for hint in self._read(node, module, depth):
            if hint not in members:
                members.append(hint)
        return tuple(members)

    def _read(self, node: ast.expr, module: str, depth: int) -> list[Hint]:  # noqa: PLR0911 - one arm a form
        if depth > MAX_DEPTH:
            return [Hint("any")]
        match node:
            case ast.Constant(value=None):
                return [Hint("none")]
            case ast.Constant() if node.value is ...:
                return [Hint("ellipsis")]
            case ast.Constant(value=str(text)):
                try:
                    return self._read(ast.parse(text, mode="eval").body, module, depth + 1)
                except SyntaxError:
                    return [Hint("any")]
            case ast.BinOp(op=ast.BitOr()):
                return [*self._read(node.left, module, depth), *self._read(node.right, module, depth)]
            case ast.Subscript(value=value, slice=inner):
                return self._subscript(value, inner, module, depth)
            case ast.Name(id=name):
                return self._named(name, module, depth)
            case ast.Attribute():
                found = self._interpreter.evaluate(node, module, {})
                return self._class(found) if isinstance(found, ClassRef) else [Hint("class")]
            case _:
                return [Hint("any")]

    def _subscript(  # noqa: PLR0911 - one arm a form
        self, value: ast.expr, inner: ast.expr, module: str, depth: int
    ) -> list[Hint]:
        name = ast.unparse(value).split(".")[-1]
        members = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if name == "Optional":
            return [*self._read(inner, module, depth + 1), Hint("none")]
        if name == "Union":
            return [hint for m in members for hint in self._read(m, module, depth + 1)]
        if name == "Literal":
            return [Hint("literal", tuple(dict.fromkeys(v for m in members for v in self._literal(m, module))))]
        if name == "ClassVar":
            return [Hint("classvar")]
        if name in _TRANSPARENT:
            return self._read(members[0], module, depth + 1)
        if name in _CONTAINERS:
            return [Hint(_CONTAINERS[name], items=tuple(self.read(m, module, depth + 1) for m in members))]
        return [Hint("class")]

    def _literal(self, node: ast.expr, module: str) -> list[object]:
        if isinstance(node, ast.Subscript | ast.Name):  # a literal of literals
            return [v for hint in self.read(node, module) for v in hint.values]
        value = self._interpreter.evaluate(node, module, {})
        return [value.label if isinstance(value, EnumMember) else value]

    def _named(self, name: str, module: str, depth: int) -> list[Hint]:  # noqa: PLR0911 - one arm a form
        if name in _BUILTIN:
            return [Hint(name)]
        if name in _CONTAINERS:
            return [Hint(_CONTAINERS[name])]
        if name == "Any":
            return [Hint("any")]
        definition = self._interpreter.sources.define(module, name)
        if definition is None or definition.node is None:
            return [Hint("class")]
        node = definition.node
        if isinstance(node, ast.ClassDef):
            return self._class(ClassRef(definition.module, node, node.name))
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func).endswith("TypeVar"):
                return [Hint("var")]
            return self._read(node.value, definition.module, depth + 1)
        return [Hint("class")]

    def _class(self, of: ClassRef) -> list[Hint]:
        if of.is_enum():
            members = self._interpreter.members(of)
            names = [m.name for m in members] if of.is_int_enum() else []
            return [Hint("enum", (*(m.label for m in members), *names), of=of)]
        if of.is_dataclass():
            return [Hint("config", of=of)]
        if of.is_dict():
            return [Hint("dict", of=of)]
        return [Hint("class", of=of)]
