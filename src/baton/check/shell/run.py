"""A walk over a script's tree in the order a shell would run it, both sides of every condition taken.

Knows statements and what they do to variables; words and values are read by `shell_expand`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tree_sitter import Node

from baton.check.shell.assign import assignment, declare
from baton.check.shell.builtin import DECLARES, apply
from baton.check.shell.expand import Expander, Stretch
from baton.check.shell.faults import fault_of
from baton.check.shell.inputs import REDIRECTS, is_script, read_input, words_behind
from baton.check.shell.nested import Nested, Where, assigned, name_of, nested, runs_elsewhere
from baton.check.shell.parse import parse, readable
from baton.check.shell.record import Command, Record
from baton.check.shell.scope import MAX_ITEMS, Scope, Variable
from baton.check.shell.words import Field, Piece, Word
from baton.check.text import Text
from baton.check.yaml.tree import Fault

MAX_DEPTH = 12
MAX_SCRIPTS = 500

_CHANGES = re.compile(
    r"(?<![\w-])([A-Za-z_]\w*)(?:\[[^]\n]*\])?\s*(?:\+\+|--|[-+*/%]?=(?!=))|\b(shift|set)\b", re.ASCII
)
_TESTS = frozenset({"[", "test", "grep", "command", "which", "type", "false"})
_OPENERS = frozenset({"then", "do", "else", "{", "(", ";", "&", "|", "&&", "||", "!"})
_WORDS = frozenset(
    {"word", "number", "string", "raw_string", "ansi_c_string", "concatenation", "simple_expansion", "expansion"}
)


def read_script(pieces: Sequence[Piece], scope: Scope, record: Record, depth: int = 0) -> None:
    """Read the script that pieces make up; what is not known of it is a word like any other, of unknown value."""
    record.num_scripts += 1
    if not pieces or depth > MAX_DEPTH or record.num_scripts > MAX_SCRIPTS:
        return
    text = Text.join(piece.text for piece in pieces)
    holes, at = list[tuple[int, int]](), 0
    for piece in pieces:
        if not piece.is_known:
            holes.append((at, at + len(piece.text)))
        at += len(piece.text)
    walk = _Walk(text, tuple(holes), scope, record, depth)
    try:
        walk.run()
    except RecursionError:
        record.faults.append(Fault(text.span(0, 1), "not valid shell: nested too deeply to be followed"))


def read_nested(
    script: Nested, words: Sequence[tuple[Field, Word]], scope: Scope, record: Record, depth: int = 0
) -> None:
    """Read the script that a command line holds; `scope` is that of the command, its own variables set."""
    inner = scope if script.where is Where.HERE else Scope()
    if script.where is Where.CHILD:
        inner = _child(scope)
    if script.arguments:
        given = [words[at][0] for at in script.arguments]
        inner.name, inner.arguments = given[0], tuple(given[1:])
    elif script.where is Where.CHILD:
        inner.arguments = ()
    pieces: list[Piece] = []
    for at in script.script:
        parts, word = words[at]
        if pieces:
            pieces.append(Piece(Text.at(" ", word.span)))
        pieces.extend(parts)
    read_script(pieces, inner, record, depth + 1)


def read_input_script(words: Sequence[Word], pieces: Sequence[Piece], scope: Scope, record: Record, depth: int) -> None:
    """Read a script that a command line is given on its standard input."""
    read_script(pieces, Scope() if runs_elsewhere(words) else _child(scope), record, depth + 1)


def _child(scope: Scope) -> Scope:
    """Return what a shell starts with that is started here."""
    exported = scope.exported & scope.variables.keys()
    return Scope({name: scope.variables[name] for name in exported}, exported)


@dataclass(slots=True)
class _Walk:
    """One script being read."""

    text: Text
    holes: tuple[tuple[int, int], ...]
    scope: Scope
    record: Record
    depth: int
    code: str = ""
    functions: dict[str, Node] = field(default_factory=dict)
    called: dict[str, Node] = field(default_factory=dict)
    expander: Expander = field(init=False)

    def run(self) -> None:
        """Read all of it."""
        self.code = readable(self.text.value, self.holes)
        self.expander = Expander(self.text, self.code, self.holes, self.scope, self._substitution)
        root = parse(self.code)
        fault = fault_of(root, self.text, self.code, self.holes)
        if fault is not None:
            self.record.faults.append(fault)
        self.visit(root)
        while self.functions:
            _, body = self.functions.popitem()
            with_arguments = self.scope.copy()
            with_arguments.arguments, with_arguments.has_ended = None, False
            self._within(with_arguments, body)

    def visit(self, node: Node, redirects: tuple[Node, ...] = ()) -> None:
        """Read a statement; `redirects` stand behind it."""
        handler = _HANDLERS.get(node.type)
        if handler is not None:
            handler(self, node, redirects)
        else:
            self._block(node, redirects)

    def _block(self, node: Node, redirects: tuple[Node, ...] = ()) -> None:
        """Read what stands in a node, one after another."""
        children = node.children
        for at, child in enumerate(children):
            if not child.child_count:
                continue
            if at + 1 < len(children) and children[at + 1].type == "&":
                self._within(self.scope.copy(), child)
            else:
                self.visit(child)
        self._inputs(redirects)

    def _within(self, scope: Scope, *nodes: Node, redirects: tuple[Node, ...] = ()) -> Scope:
        """Read nodes in a scope of their own; return it."""
        outer = self.scope
        self.scope = self.expander.scope = scope
        for node in nodes:
            self.visit(node, redirects)
        self.scope = self.expander.scope = outer
        return scope

    def _substitution(self, node: Node) -> None:
        outer = self.scope
        self.scope = self.expander.scope = outer.copy()
        self._block(node)
        self.scope = self.expander.scope = outer

    # Statements

    def _nothing(self, node: Node, redirects: tuple[Node, ...]) -> None:
        pass

    def _subshell(self, node: Node, redirects: tuple[Node, ...]) -> None:
        self._substitution(node)
        self._inputs(redirects)

    def _redirected(self, node: Node, redirects: tuple[Node, ...]) -> None:
        body = node.child_by_field_name("body")
        found = tuple(child for child in node.children if child.type in REDIRECTS)
        if body is not None:
            self.visit(body, (*found, *redirects))
        else:
            self._inputs((*found, *redirects))

    def _pipeline(self, node: Node, redirects: tuple[Node, ...]) -> None:
        parts = node.named_children
        for part in parts:
            self._within(self.scope.copy(), part, redirects=redirects if part == parts[-1] else ())

    def _last(self, node: Node, redirects: tuple[Node, ...]) -> None:
        for part in node.named_children:
            self.visit(part, redirects)

    def _list(self, node: Node, redirects: tuple[Node, ...]) -> None:
        """Read a && b || c: what follows || may not run, nor what follows a test."""
        start = self.scope.copy()
        parts = list(_chain(node))
        for operator, part in parts:
            before = self.scope.copy() if operator == "||" else None
            self.visit(part, redirects if part == parts[-1][1] else ())
            if before is not None:
                self.scope.become([before, self.scope.copy()])
        if any(operator == "&&" for operator, _ in parts) and self._is_test(parts[0][1]):
            self.scope.become([start, self.scope.copy()])
        self.scope.has_ended = start.has_ended

    def _is_test(self, node: Node) -> bool:
        if node.type in {"test_command", "negated_command"} or self.code.startswith("((", node.start_byte):
            return True
        name = node.child_by_field_name("name")
        return name is not None and self.code[name.start_byte : name.end_byte] in _TESTS

    def _if(self, node: Node, redirects: tuple[Node, ...]) -> None:
        branches: list[Scope] = []
        branch: Scope | None = None
        has_else = False
        for child in node.children:
            if child.type == "then":
                branch = self.scope.copy()
                branches.append(branch)
            elif child.type in {"elif_clause", "else_clause"}:
                has_else = has_else or child.type == "else_clause"
                branches.append(self._within(self.scope.copy(), child))
            elif branch is not None:
                self._within(branch, child)
            else:
                self.visit(child)
        self.scope.become(branches if has_else else [self.scope.copy(), *branches])
        self._inputs(redirects)

    def _case(self, node: Node, redirects: tuple[Node, ...]) -> None:
        branches: list[Scope] = []
        has_default = False
        for child in node.children:
            if child.type == "case_item":
                value = child.child_by_field_name("value")
                has_default = has_default or (value is not None and self.code[value.start_byte : value.end_byte] == "*")
                branches.append(self._within(self.scope.copy(), child))
            else:
                self.visit(child)
        self.scope.become(branches if has_default else [self.scope.copy(), *branches])

    def _loop(self, node: Node, redirects: tuple[Node, ...]) -> None:
        """Read a loop's body once; what it changes is not known in it until it is set, nor after."""
        self._forget_changes(node)
        variable = node.child_by_field_name("variable")
        if variable is not None:
            self._forget(variable)
        before = self.scope.copy()
        for child in node.children:
            if node.type != "c_style_for_statement" or child.type in {"do_group", "compound_statement"}:
                self.visit(child)
        self.scope.become([before, self.scope.copy()])
        self.scope.has_ended = before.has_ended
        self._inputs(redirects)

    def _forget_changes(self, node: Node) -> None:
        """Take it that whatever a stretch assigns may have any value."""
        for found in _CHANGES.finditer(self.code, node.start_byte, node.end_byte):
            if found[2]:
                self.scope.arguments = None
            else:
                self.scope.forget(found[1], self.text[found.start(1) : found.end(1)])

    def _forget(self, name: Node) -> None:
        start, end = name.start_byte, name.end_byte
        self.scope.forget(self.code[start:end], self.text[start:end])

    def _function(self, node: Node, redirects: tuple[Node, ...]) -> None:
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if name is not None and body is not None:
            self.functions[self.code[name.start_byte : name.end_byte]] = body

    def _compound(self, node: Node, redirects: tuple[Node, ...]) -> None:
        if node.children and node.children[0].type == "((":
            self._forget_changes(node)
        self._block(node, redirects)

    def _broken(self, node: Node, redirects: tuple[Node, ...]) -> None:
        """Read what is left of a broken stretch: its statements, and words in a row where a command may stand."""
        row: list[Node] = []
        before: Node | None = None
        for child in node.children:
            is_near = before is not None and "\n" not in self.code[before.end_byte : child.start_byte].replace(
                "\\\n", ""
            )
            if row and not (is_near and child.type in _WORDS):
                self._row(row)
                row = []
            if child.type in _WORDS and (row or not is_near or (before and before.type in _OPENERS)):
                row.append(child)
            elif child.child_count:
                self.visit(child)
            before = child
        if row:
            self._row(row)

    def _row(self, row: list[Node]) -> None:
        words = self.expander.words(Stretch(node, node.start_byte, node.end_byte) for node in row)
        self._start(words, {}, ())

    # Simple commands

    def _assign(self, node: Node, redirects: tuple[Node, ...] = ()) -> None:
        name, variable = assignment(self.expander, node)
        if name:
            self.scope.set(name, variable)

    def _declare(self, node: Node, redirects: tuple[Node, ...]) -> None:
        """Read export, local, declare, readonly."""
        words = self.code[node.start_byte : node.end_byte].split()
        exports = words[0] == "export" or any(word.startswith("-") and "x" in word for word in words[1:])
        is_undone = words[0] == "export" and "-n" in words
        names: list[str] = []
        for child in node.children[1:]:
            if child.type == "variable_assignment":
                name, variable = assignment(self.expander, child)
                self.scope.set(name, variable)
                names.append(name)
            elif child.type == "variable_name":
                names.append(self.code[child.start_byte : child.end_byte])
            elif child.type in _WORDS:
                given = self.expander.words([Stretch(child, child.start_byte, child.end_byte)])
                names.extend(declare(self.scope, given))
        if is_undone:
            self.scope.exported.difference_update(names)
        elif exports:
            self.scope.exported.update(names)

    def _unset(self, node: Node, redirects: tuple[Node, ...]) -> None:
        for child in node.named_children:
            self.scope.unset(self.code[child.start_byte : child.end_byte])

    def _command(self, node: Node, redirects: tuple[Node, ...]) -> None:
        found = (*(child for child in node.children if child.type in REDIRECTS), *redirects)
        stretches = [Stretch(node, node.start_byte, node.end_byte), *words_behind(found)]
        words = self.expander.words(stretches)
        own: dict[str, Variable] = {}
        outer = self.scope
        assignments = [child for child in node.children if child.type == "variable_assignment"]
        if assignments and words:
            self.scope = self.expander.scope = outer.copy()
        for child in assignments:
            name, variable = assignment(self.expander, child)
            self.scope.set(name, variable)
            own[name] = variable
        self.scope = self.expander.scope = outer
        self._start(words, own, found)

    def _start(self, words: list[tuple[Field, Word]], own: dict[str, Variable], redirects: tuple[Node, ...]) -> None:
        """Take down a command and read the scripts it holds or is given."""
        plain = tuple(word for _, word in words)
        scope = self.scope
        if plain and (own or assigned(plain)):
            scope = self.scope.copy()
            for name, word in assigned(plain).items():
                own[name] = Variable.of(word, (Piece(word.text, word.is_known),))
            scope.variables.update(own)
            scope.exported.update(own)
        name = name_of(plain[0]) if plain else ""
        if name in DECLARES:
            names = declare(self.scope, words[1:])
            self.scope.exported.update(names if name == "export" else ())
        elif plain:
            self.record.commands.append(Command(plain, scope.environment(), plain[0].span.to(plain[-1].span)))
            script = nested(plain)
            if script is not None:
                read_nested(script, words, scope, self.record, self.depth)
        self._inputs(redirects, plain, scope)
        apply(self.scope, name, words)
        if name in self.functions:
            self._call(name, tuple(pieces for pieces, _ in words[1:]))
        elif name in self.called:
            self._forget_changes(self.called[name])

    def _call(self, name: str, arguments: tuple[Field, ...]) -> None:
        """Read a function where it is first called; its arguments are known if that is the only call."""
        body = self.functions.pop(name)
        self.called[name] = body
        calls = re.findall(rf"(?<![\w./-]){re.escape(name)}(?![\w.=-])", self.code)
        outer, self.scope.arguments = (
            self.scope.arguments,
            arguments if len(calls) <= 2 and len(arguments) <= MAX_ITEMS else None,
        )
        self.visit(body)
        self.scope.arguments, self.scope.has_ended = outer, False

    def _inputs(self, redirects: Sequence[Node], words: Sequence[Word] = (), scope: Scope | None = None) -> None:
        """Read the scripts that redirects hand to a command, and what else stands in them."""
        for redirect in redirects:
            given = read_input(self.expander, redirect)
            if given.pieces and is_script(self.expander, words, redirects, given):
                read_input_script(words, given.pieces, scope or self.scope, self.record, self.depth)
            for statement in given.statements:
                self._within(self.scope.copy(), statement)


def _chain(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield the parts of a list, each with the operator before it."""
    parts, operator, last = list[tuple[str, Node]](), "", node
    while last.type == "list":
        children = [child for child in last.children if child.type != "comment"]
        for child in reversed(children[1:]):
            if child.is_named:
                parts.append((_operator_before(last, child), child))
        last = children[0]
    yield operator, last
    yield from reversed(parts)


def _operator_before(node: Node, part: Node) -> str:
    before = part.prev_sibling
    while before is not None and before.type == "comment":
        before = before.prev_sibling
    return before.type if before is not None else ""


_HANDLERS: Mapping[str, Callable[[_Walk, Node, tuple[Node, ...]], None]] = {
    "command": _Walk._command,
    "variable_assignment": _Walk._assign,
    "declaration_command": _Walk._declare,
    "unset_command": _Walk._unset,
    "redirected_statement": _Walk._redirected,
    "pipeline": _Walk._pipeline,
    "list": _Walk._list,
    "negated_command": _Walk._last,
    "if_statement": _Walk._if,
    "case_statement": _Walk._case,
    "for_statement": _Walk._loop,
    "while_statement": _Walk._loop,
    "c_style_for_statement": _Walk._loop,
    "function_definition": _Walk._function,
    "compound_statement": _Walk._compound,
    "subshell": _Walk._subshell,
    "command_substitution": _Walk._subshell,
    "process_substitution": _Walk._subshell,
    "comment": _Walk._nothing,
    "ERROR": _Walk._broken,
}
