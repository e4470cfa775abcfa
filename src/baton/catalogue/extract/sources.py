"""The Python sources of one wheel: parsed module by module on demand, names bound to what defines them.

Knows files, modules and names. Does not know what any name means; that is the interpreter's.
"""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Definition:
    """Where a name comes from: `node` in `module`, or, with `node` None, the dotted name `module` outside the wheel."""

    module: str
    node: ast.AST | None


class Sources:
    """The modules of one package, by dotted name.

    `files` maps a path inside the wheel to its text.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files
        self._trees: dict[str, ast.Module | None] = {}
        self._bindings: dict[str, dict[str, ast.AST]] = {}

    def text(self, module: str) -> str:
        """Return the text of a module, or "" if the wheel has none of that name."""
        path = self._path(module)
        return "" if path is None else self._files[path]

    def modules(self, prefix: str = "") -> list[str]:
        """Return the sorted names of all modules that begin with `prefix`."""
        names = (p.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for p in self._files)
        return sorted(n for n in names if n.startswith(prefix))

    def tree(self, module: str) -> ast.Module | None:
        """Return the syntax tree of a module; None if the wheel lacks it or it does not parse."""
        if module not in self._trees:
            path = self._path(module)
            try:
                self._trees[module] = None if path is None else ast.parse(self._files[path])
            except SyntaxError:
                self._trees[module] = None
        return self._trees[module]

    def define(  # noqa: PLR0911 - one arm a way to bind a name
        self, module: str, name: str, seen: frozenset[tuple[str, str]] = frozenset()
    ) -> Definition | None:
        """Follow `name` through imports to the statement that defines it; None if the module has no such name."""
        if (module, name) in seen:
            return None
        seen |= {(module, name)}
        node = self.bindings(module).get(name)
        if isinstance(node, ast.ImportFrom):
            origin = absolute_module(module, node, self._is_package(module))
            original = next(a.name for a in node.names if (a.asname or a.name) == name)
            if self.tree(f"{origin}.{original}") is not None and original not in self.bindings(origin):
                return Definition(f"{origin}.{original}", self.tree(f"{origin}.{original}"))
            if self.tree(origin) is not None:
                return self.define(origin, original, seen)
            return Definition(f"{origin}.{original}", None)
        if isinstance(node, ast.Import):
            alias = next(a for a in node.names if (a.asname or a.name.split(".")[0]) == name)
            target = alias.name if alias.asname else name
            return Definition(target, self.tree(target))
        if node is None:
            return self._star(module, name, seen)
        return Definition(module, node)

    def bindings(self, module: str) -> dict[str, ast.AST]:
        """Return what each top-level name of a module is bound by: an import, class, function or assignment.

        The branch that runs wins over the one under TYPE_CHECKING, and a `try` body over its handlers.
        """
        if module not in self._bindings:
            tree = self.tree(module)
            bound: dict[str, ast.AST] = {}
            for statement, is_first_choice in _top_level(tree.body if tree else []):
                for name in _names(statement):
                    if is_first_choice or name not in bound:
                        bound[name] = statement
            self._bindings[module] = bound
        return self._bindings[module]

    def _star(self, module: str, name: str, seen: frozenset[tuple[str, str]]) -> Definition | None:
        tree = self.tree(module)
        for node in tree.body if tree else []:
            if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
                origin = absolute_module(module, node, self._is_package(module))
                found = self.define(origin, name, seen)
                if found is not None:
                    return found
        return None

    def _path(self, module: str) -> str | None:
        stem = module.replace(".", "/")
        return next((p for p in (f"{stem}.py", f"{stem}/__init__.py") if p in self._files), None)

    def _is_package(self, module: str) -> bool:
        return f"{module.replace('.', '/')}/__init__.py" in self._files


def read_wheel(path: Path, packages: tuple[str, ...]) -> Sources:
    """Read the .py files of `packages` (top-level folders) out of a wheel; nothing is unpacked to disk."""
    files: dict[str, str] = {}
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if name.endswith(".py") and name.split("/")[0] in packages and "/tests/" not in name:
                files[name] = wheel.read(name).decode("utf-8", "replace")
    return Sources(files)


def absolute_module(module: str, node: ast.ImportFrom, is_package: bool) -> str:
    """Return the absolute name of the module an import statement inside `module` names."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*parts, node.module] if node.module else parts)


def _top_level(body: list[ast.stmt], first: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    for node in body:
        if isinstance(node, ast.If):
            only_types = "TYPE_CHECKING" in ast.unparse(node.test)
            yield from _top_level(node.body, first and not only_types)
            yield from _top_level(node.orelse, first and only_types)
        elif isinstance(node, ast.Try):
            yield from _top_level(node.body, first)
            for handler in node.handlers:
                yield from _top_level(handler.body, False)
        elif isinstance(node, ast.With):
            yield from _top_level(node.body, first)
        else:
            yield node, first


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    if isinstance(node, ast.ImportFrom):
        return [a.asname or a.name for a in node.names if a.name != "*"]
    if isinstance(node, ast.Import):
        return [a.asname or a.name.split(".")[0] for a in node.names]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name)]
    return []
