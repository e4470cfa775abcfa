"""The value of an expression: what of Python's syntax can be known without running anything."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod

from baton.catalogue.extract import operations
from baton.catalogue.extract.values import ClassRef, FunctionRef, Unknown, is_known

Scope = dict[str, object]


class Expressions(ABC):
    """Evaluates expressions; names, attributes and calls are its subclass's."""

    @abstractmethod
    def name(self, module: str, name: str) -> object:
        """Return the value of a module-level name."""

    @abstractmethod
    def attribute(self, value: object, name: str) -> object:
        """Return an attribute of a value."""

    @abstractmethod
    def iterable(self, value: object) -> object:
        """Return what is walked when a value is."""

    @abstractmethod
    def _call(self, node: ast.Call, module: str, scope: Scope) -> object:
        """Return what a call gives."""

    def evaluate(self, node: ast.expr, module: str, scope: Scope) -> object:
        """Return the value of an expression seen in `module` with local names `scope`."""
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        value = method(node, module, scope) if method is not None else Unknown()
        return Unknown(ast.unparse(node)) if isinstance(value, Unknown) and not value.text else value

    def _constant(self, node: ast.Constant, _module: str, _scope: Scope) -> object:
        return node.value

    def _name(self, node: ast.Name, module: str, scope: Scope) -> object:
        return scope[node.id] if node.id in scope else self.name(module, node.id)

    def _list(self, node: ast.List, module: str, scope: Scope) -> object:
        return operations.sequence(self._elements(node.elts, module, scope))

    def _tuple(self, node: ast.Tuple, module: str, scope: Scope) -> object:
        return tuple(self._elements(node.elts, module, scope))

    def _set(self, node: ast.Set, module: str, scope: Scope) -> object:
        return operations.as_set(self._elements(node.elts, module, scope))

    def _elements(self, nodes: list[ast.expr], module: str, scope: Scope) -> list[object]:
        out: list[object] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                inner = self.evaluate(node.value, module, scope)
                out.extend(operations.iterate(inner) if operations.is_iterable(inner) else [inner])
            else:
                out.append(self.evaluate(node, module, scope))
        return out

    def _dict(self, node: ast.Dict, module: str, scope: Scope) -> object:
        out: dict[object, object] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            inner = self.evaluate(value, module, scope)
            if key is not None:
                operations.put(out, self.evaluate(key, module, scope), inner)
            elif isinstance(inner, dict):
                out.update(inner)
        return out

    def _joinedstr(self, node: ast.JoinedStr, module: str, scope: Scope) -> object:
        parts = [self.evaluate(v.value if isinstance(v, ast.FormattedValue) else v, module, scope) for v in node.values]
        if any(not (is_known(p) and isinstance(p, str | int | float | list | None)) for p in parts):
            return Unknown(ast.unparse(node))
        return "".join(map(str, parts))

    def _binop(self, node: ast.BinOp, module: str, scope: Scope) -> object:
        left, right = (self.evaluate(n, module, scope) for n in (node.left, node.right))
        return operations.binary(type(node.op), left, right)

    def _unaryop(self, node: ast.UnaryOp, module: str, scope: Scope) -> object:
        return operations.unary(type(node.op), self.evaluate(node.operand, module, scope))

    def _compare(self, node: ast.Compare, module: str, scope: Scope) -> object:
        if len(node.ops) != 1:
            return Unknown()
        left, right = (self.evaluate(n, module, scope) for n in (node.left, node.comparators[0]))
        return operations.compare(type(node.ops[0]), left, right)

    def _boolop(self, node: ast.BoolOp, module: str, scope: Scope) -> object:
        stops = isinstance(node.op, ast.Or)
        value: object = Unknown()
        for part in node.values:
            value = self.evaluate(part, module, scope)
            truth = operations.truth(value)
            if truth is None:
                return Unknown(ast.unparse(node))
            if truth is stops:
                return value
        return value

    def _ifexp(self, node: ast.IfExp, module: str, scope: Scope) -> object:
        truth = operations.truth(self.evaluate(node.test, module, scope))
        if truth is None:
            return Unknown()
        return self.evaluate(node.body if truth else node.orelse, module, scope)

    def _lambda(self, node: ast.Lambda, module: str, scope: Scope) -> object:
        return FunctionRef(module, node, closure=dict(scope))

    def _subscript(self, node: ast.Subscript, module: str, scope: Scope) -> object:
        value = self.evaluate(node.value, module, scope)
        if isinstance(value, ClassRef):
            key = self.evaluate(node.slice, module, scope)
            return self.attribute(value, key) if isinstance(key, str) else Unknown()
        if isinstance(node.slice, ast.Slice):
            bounds = [
                None if n is None else self.evaluate(n, module, scope)
                for n in (node.slice.lower, node.slice.upper, node.slice.step)
            ]
            return operations.index(value, slice(*bounds))
        return operations.index(value, self.evaluate(node.slice, module, scope))

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp, module: str, scope: Scope) -> object:
        return operations.sequence([self.evaluate(node.elt, module, s) for s in self._each(node, module, scope)])

    _listcomp = _generatorexp = _comprehension

    def _setcomp(self, node: ast.SetComp, module: str, scope: Scope) -> object:
        return operations.as_set([self.evaluate(node.elt, module, s) for s in self._each(node, module, scope)])

    def _dictcomp(self, node: ast.DictComp, module: str, scope: Scope) -> object:
        out: dict[object, object] = {}
        for inner in self._each(node, module, scope):
            operations.put(out, self.evaluate(node.key, module, inner), self.evaluate(node.value, module, inner))
        return out

    def _each(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, module: str, scope: Scope
    ) -> list[Scope]:
        scopes = [dict(scope)]
        for generator in node.generators:
            following: list[Scope] = []
            for outer in scopes:
                for item in operations.iterate(self.iterable(self.evaluate(generator.iter, module, outer))):
                    inner = dict(outer)
                    bind(generator.target, item, inner)
                    if all(operations.truth(self.evaluate(c, module, inner)) is not False for c in generator.ifs):
                        following.append(inner)
            scopes = following
        return scopes

    def _attribute(self, node: ast.Attribute, module: str, scope: Scope) -> object:
        return self.attribute(self.evaluate(node.value, module, scope), node.attr)


def bind(target: ast.expr, value: object, scope: Scope) -> None:
    """Give a name, or each name of a tuple, its value."""
    if isinstance(target, ast.Name):
        scope[target.id] = value
    elif isinstance(target, ast.Tuple):
        parts = list(value) if isinstance(value, tuple | list) else [Unknown()] * len(target.elts)
        for inner, part in zip(target.elts, parts, strict=False):
            bind(inner, part, scope)
