"""A small evaluator of Python syntax trees: constants, containers, names, attributes, calls of its functions.

Never executes foreign code: it knows a fixed list of pure operations on values it built itself, and everything else is
`Unknown`. A branch whose condition is unknown is taken on both sides, so a flag that is added on some machines is seen.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Sequence

from baton.catalogue.extract import operations
from baton.catalogue.extract.expressions import Expressions, Scope, bind
from baton.catalogue.extract.sources import Definition, Sources, absolute_module
from baton.catalogue.extract.values import (
    Argument,
    ClassRef,
    EnumMember,
    External,
    FieldValue,
    FunctionRef,
    Instance,
    ModuleRef,
    Parser,
    Unknown,
)

type_names = ("str", "int", "float", "bool", "list", "tuple", "dict", "set", "frozenset", "object", "type")
Intrinsic = Callable[["Interpreter", Sequence[object], dict[str, object], ast.Call, str], object]
MAX_DEPTH = 24


class _Returned(Exception):
    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


class _Raised(Exception):
    """The interpreted code raised."""


class Interpreter(Expressions):
    """Evaluates expressions and calls functions of `sources`.

    `intrinsics` are the functions answered here instead of interpreted, by bare or dotted name.
    """

    def __init__(self, sources: Sources, intrinsics: dict[str, Intrinsic]) -> None:
        self.sources = sources
        self.intrinsics = intrinsics
        self.parsers: list[Parser] = []
        self._depth = 0
        self._names: dict[tuple[str, str], object] = {}

    def name(self, module: str, name: str) -> object:
        """Return the value of a module-level name; `External` for builtins, `Unknown` if nothing defines it."""
        key = (module, name)
        if key not in self._names:
            self._names[key] = Unknown(name)  # what a definition that refers to itself sees
            definition = self.sources.define(module, name)
            if definition is not None:
                self._names[key] = self._defined(definition, name)
            elif name in type_names:
                self._names[key] = getattr(builtins, name)
            elif hasattr(builtins, name):
                self._names[key] = External(name)
        return self._names[key]

    def _defined(self, definition: Definition, name: str) -> object:
        node, module = definition.node, definition.module
        if node is None:
            return External(module)
        if isinstance(node, ast.Module):
            return ModuleRef(module)
        if isinstance(node, ast.ClassDef):
            return ClassRef(module, node, node.name)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return FunctionRef(module, node)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            return self.evaluate(node.value, module, {})
        return Unknown(name)

    def iterable(self, value: object) -> object:
        """Return an enum class as the list of its members, anything else as it is."""
        return self.members(value) if isinstance(value, ClassRef) else value

    def members(self, enum: ClassRef) -> list[EnumMember]:
        """Return the members of an enum class in the order written.

        A member is labelled by its number in an IntEnum, by its value where all are plain words, otherwise by its name.
        """
        out: list[EnumMember] = []
        for node in enum.node.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if not name.startswith("_"):
                    out.append(EnumMember(enum.name, name, self.evaluate(node.value, enum.module, {})))
        is_words = all(isinstance(m.value, str) and m.value and "." not in m.value for m in out)
        is_label = is_words or enum.is_int_enum()
        return [EnumMember(m.enum, m.name, m.value, m.value if is_label else m.name) for m in out]

    def attribute(self, value: object, name: str) -> object:
        """Return an attribute: a module's name, a class's constant, method or enum member, an object's field."""
        if isinstance(value, ModuleRef):
            submodule = f"{value.name}.{name}"
            found = self.name(value.name, name)
            known = not isinstance(found, Unknown) or self.sources.tree(submodule) is None
            return found if known else ModuleRef(submodule)
        if isinstance(value, External):
            return operations.CONSTANTS.get(f"{value.name}.{name}", External(f"{value.name}.{name}"))
        if isinstance(value, EnumMember):
            return {"name": value.name, "value": value.value}.get(name, Unknown())
        if isinstance(value, Instance):
            return value.attributes.get(name, self._class_attribute(value.of, name, value))
        if isinstance(value, ClassRef):
            return self._class_attribute(value, name, value)
        return Unknown()

    def _class_attribute(self, owner: ClassRef, name: str, bound: object) -> object:
        if name == "__name__":
            return owner.name
        for node in owner.node.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                decorators = {ast.unparse(d) for d in node.decorator_list}
                takes_self = "staticmethod" not in decorators
                if "classmethod" in decorators and isinstance(bound, Instance):
                    bound = bound.of
                return FunctionRef(owner.module, node, bound=(bound,) if takes_self else (), owner=owner)
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            written = getattr(node, "value", None)
            if isinstance(target, ast.Name) and target.id == name and written is not None:
                value = self.evaluate(written, owner.module, {})
                if owner.is_enum():
                    return next((m for m in self.members(owner) if m.name == name), Unknown())
                return field_default(self, value)
        for base in self.bases(owner):
            found = self._class_attribute(base, name, bound)
            if not isinstance(found, Unknown):
                return found
        return Unknown()

    def bases(self, owner: ClassRef) -> list[ClassRef]:
        """Return the base classes that are in the wheel."""
        values = (self.evaluate(base, owner.module, {}) for base in owner.node.bases)
        return [v for v in values if isinstance(v, ClassRef)]

    def _call(self, node: ast.Call, module: str, scope: Scope) -> object:
        arguments = self._elements(node.args, module, scope)
        keywords: dict[str, object] = {}
        for keyword in node.keywords:
            value = self.evaluate(keyword.value, module, scope)
            if keyword.arg is not None:
                keywords[keyword.arg] = value
            elif isinstance(value, dict):
                keywords.update({str(k): v for k, v in value.items()})
        if isinstance(node.func, ast.Name) and node.func.id == "super":
            return self._super(scope)
        if isinstance(node.func, ast.Attribute):
            target = self.evaluate(node.func.value, module, scope)
            if isinstance(target, Parser):
                return self._parser_method(target, node.func.attr, arguments, keywords)
            if isinstance(target, str | list | dict | set | tuple):
                return operations.method(target, node.func.attr, arguments, keywords)
            function = self.attribute(target, node.func.attr)
        else:
            function = self.evaluate(node.func, module, scope)
        return self.call(function, arguments, keywords, node, module)

    def _super(self, scope: Scope) -> object:
        owner, bound = scope.get("__class__"), next(iter(scope.values()), None)
        bases = self.bases(owner) if isinstance(owner, ClassRef) else []
        return Instance(bases[0], {"__bound__": bound}) if bases else Unknown()

    def call(  # noqa: PLR0911 - one arm a kind of thing called
        self, function: object, arguments: Sequence[object], keywords: dict[str, object], node: ast.Call, module: str
    ) -> object:
        """Return what a call gives: an intrinsic's answer, the interpreted function's result, or a new object."""
        name = getattr(function, "name", getattr(function, "__name__", ""))
        for known in (name, f"{getattr(function, 'module', '')}.{name}"):
            if known in self.intrinsics:
                return self.intrinsics[known](self, arguments, keywords, node, module)
        if isinstance(function, ClassRef):
            if function.name.endswith("ArgumentParser"):
                return self._new_parser(function.name, keywords)
            if function.is_dict():
                return dict(keywords)
            fields = [n.target for n in function.node.body if isinstance(n, ast.AnnAssign)]
            names = [target.id for target in fields if isinstance(target, ast.Name)]
            return Instance(function, dict(zip(names, arguments, strict=False)) | keywords)
        if isinstance(function, FunctionRef):
            return self.interpret(function, arguments, keywords)
        if isinstance(function, External) and function.name.endswith("ArgumentParser"):
            return self._new_parser(function.name, keywords)
        return operations.builtin(name, arguments, keywords, self.iterable)

    def interpret(self, function: FunctionRef, arguments: Sequence[object], keywords: dict[str, object]) -> object:
        """Return what a function of the wheel returns for these arguments, `Unknown` if it raises or nests too deep."""
        if self._depth >= MAX_DEPTH:
            return Unknown()
        scope = self._parameters(function, [*function.bound, *arguments], keywords)
        self._depth += 1
        try:
            if isinstance(function.node, ast.Lambda):
                return self.evaluate(function.node.body, function.module, scope)
            self.execute(function.node.body, function.module, scope)
        except _Returned as returned:
            return returned.value
        except _Raised:
            return Unknown()
        finally:
            self._depth -= 1
        return None

    def _parameters(self, function: FunctionRef, arguments: list[object], keywords: dict[str, object]) -> Scope:
        spec = function.node.args
        positional = [a.arg for a in [*spec.posonlyargs, *spec.args]]
        scope: Scope = {}
        defaults = dict(zip(reversed(positional), reversed(spec.defaults), strict=False))
        optional = {a.arg: d for a, d in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if d is not None}
        given = dict(zip(positional, arguments, strict=False))
        for name in [*positional, *(a.arg for a in spec.kwonlyargs)]:
            written = {**defaults, **optional}.get(name)
            fallback = self.evaluate(written, function.module, {}) if written is not None else Unknown(name)
            scope[name] = given.get(name, keywords.get(name, fallback))
        if spec.vararg:
            scope[spec.vararg.arg] = tuple(arguments[len(positional) :])
        if spec.kwarg:
            scope[spec.kwarg.arg] = {k: v for k, v in keywords.items() if k not in scope}
        return {**scope, "__class__": function.owner, **{k: v for k, v in function.closure.items() if k not in scope}}

    def _new_parser(self, name: str, keywords: Scope) -> Parser:
        is_flexible = name.endswith("FlexibleArgumentParser")
        self.parsers.append(Parser([], "", is_flexible, keywords.get("allow_abbrev") is not False))
        return self.parsers[-1]

    def _parser_method(self, parser: Parser, name: str, arguments: list[object], keywords: dict[str, object]) -> object:
        if name == "add_argument":
            keywords.pop("completer", None)
            names = tuple(a for a in arguments if isinstance(a, str))
            parser.arguments.append(Argument(names, keywords, parser.group))
            return Unknown()
        if name in {"add_argument_group", "add_mutually_exclusive_group"}:
            title = keywords.get("title", arguments[0] if arguments else parser.group)
            return Parser(parser.arguments, title if isinstance(title, str) else parser.group)
        if name == "_registry_get" and arguments:
            return arguments[-1]
        return Unknown()

    def execute(self, body: Sequence[ast.stmt], module: str, scope: Scope) -> None:
        """Run statements in order, changing `scope`."""
        for node in body:
            self._statement(node, module, scope)

    def _statement(self, node: ast.stmt, module: str, scope: Scope) -> None:  # noqa: PLR0912 - one arm a statement
        match node:
            case ast.Expr(value=value):
                self.evaluate(value, module, scope)
            case ast.Assign(targets=targets, value=value):
                result = self.evaluate(value, module, scope)
                for target in targets:
                    self._assign(target, result, module, scope)
            case ast.AnnAssign(target=target, value=value) if value is not None:
                self._assign(target, self.evaluate(value, module, scope), module, scope)
            case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                old = scope.get(name, Unknown(name))
                scope[name] = operations.binary(type(op), old, self.evaluate(value, module, scope))
            case ast.Return(value=value):
                raise _Returned(None if value is None else self.evaluate(value, module, scope))
            case ast.Raise():
                raise _Raised
            case ast.If(test=test, body=body, orelse=orelse):
                truth = operations.truth(self.evaluate(test, module, scope))
                if truth is None:
                    self._maybe(body, module, scope)
                    self._maybe(orelse, module, scope)
                else:
                    self.execute(body if truth else orelse, module, scope)
            case ast.For(target=target, iter=each, body=body):
                for item in operations.iterate(self.iterable(self.evaluate(each, module, scope))):
                    bind(target, item, scope)
                    self._maybe(body, module, scope)
            case ast.With(body=body) | ast.Try(body=body):
                self.execute(body, module, scope)
            case ast.Delete(targets=targets):
                for target in targets:
                    if isinstance(target, ast.Subscript):
                        holder = self.evaluate(target.value, module, scope)
                        operations.remove(holder, self.evaluate(target.slice, module, scope))
            case ast.FunctionDef():
                scope[node.name] = FunctionRef(module, node, closure=scope)
            case ast.ImportFrom(names=names):
                for alias in names:
                    origin = absolute_module(module, node, is_package=False)
                    found = self.name(origin, alias.name)
                    scope[alias.asname or alias.name] = (
                        External(f"{origin}.{alias.name}") if isinstance(found, Unknown) else found
                    )
            case _:
                pass

    def _maybe(self, body: Sequence[ast.stmt], module: str, scope: Scope) -> None:
        try:
            self.execute(body, module, scope)
        except (_Returned, _Raised):
            return

    def _assign(self, target: ast.expr, value: object, module: str, scope: Scope) -> None:
        if isinstance(target, ast.Subscript):
            holder = self.evaluate(target.value, module, scope)
            if isinstance(holder, dict):
                operations.put(holder, self.evaluate(target.slice, module, scope), value)
        elif isinstance(target, ast.Attribute):
            holder = self.evaluate(target.value, module, scope)
            if isinstance(holder, Instance):
                holder.attributes[target.attr] = value
        else:
            bind(target, value, scope)


def field_default(interpreter: Interpreter, value: object) -> object:
    """Return the default behind a dataclass `field(...)` or pydantic `Field(...)`; other values as they are."""
    if not isinstance(value, FieldValue):
        return value
    if "default_factory" in value.keywords:
        return interpreter.call(value.keywords["default_factory"], [], {}, ast.Call(ast.Name("factory"), [], []), "")
    return value.keywords.get("default", Unknown("required"))
