"""Options and variables of a baton recipe, which stand there as keys: found again, renamed, put beside others.

A recipe says `max-num-seqs: 16` where a command line says `--max-num-seqs 16`: the word's dashes stand nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from baton.check.commands.arguments import Argument
from baton.check.finding import Edit
from baton.check.text import Source, Span, Text
from baton.check.yaml import tree
from baton.check.yaml.tree import Entry, Mapping, Node

_PARTS = ("engine", "roles.prefill", "roles.decode")
_BARE = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?|true|false")
_YAML_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")


def as_word(word: str, key: Text) -> Text:
    """Return the word of a command line that a recipe's key stands for: the same letters, behind dashes."""
    return Text(word, key.source, [*[key.offsets[0]] * (len(word) - len(key)), *key.offsets])


def is_key(text: Text) -> bool:
    """Say whether a word is a recipe's key."""
    is_option = len(text.value) > 2 and text.value.startswith("--")
    return is_option and text.offsets[0] == text.offsets[2] < text.offsets[-1] and text.offsets[-2] > text.offsets[0]


def quoted(value: str) -> str:
    """Return a value as YAML writes a string that must stay one."""
    is_plain = re.fullmatch(r"[A-Za-z][\w./-]*", value) and value.lower() not in _YAML_WORDS
    return value if is_plain else f'"{value}"'


def document(source: Source) -> Node | None:
    """Return the only YAML document of a file; None if it has none, or several, or is none at all."""
    if re.search(r"^baton:", source.text, re.MULTILINE) is None:
        return None
    documents = tree.read(source).documents
    return documents[0] if len(documents) == 1 else None


def entry_at(key: Span, *path: str) -> Entry | None:
    """Return the entry whose key stands at a place, or one below it."""
    root = document(key.source)
    for node in tree.walk(root) if root is not None else ():
        if isinstance(node, Mapping):
            for entry in node.entries.values():
                if entry.key.span.start == key.start:
                    return _below(entry, path)
    return None


def rename(option: Argument, new: str) -> tuple[Edit, ...]:
    """Write an option of a recipe by another name; a switch by `--name=value` too."""
    entry = entry_at(option.written.span)
    name, has_value, value = new.partition("=")
    if entry is None or not entry.key.text.is_exact:
        return ()
    key, *path = name.removeprefix("--").split(".")
    whole = entry.value.span
    if option.words and has_value:
        return ()
    if not option.words and not has_value:
        value = "false" if key.startswith("no-") else "true"
        key = key.removeprefix("no-")
    renaming = Edit(entry.key.text.span(), key)
    if path and option.words and not isinstance(entry.value, tree.Scalar):
        return ()
    shown = whole.written if option.words else value
    return (renaming,) if option.words and not path else (renaming, Edit(whole, _nested(path, shown)))


def insert_key(option: Argument, path: Sequence[str], value: str) -> tuple[Edit, ...]:
    """Put a key into the config that a recipe gives an option, in the innermost mapping that is there."""
    entry = entry_at(option.written.span)
    node, rest = entry.value if entry is not None else None, list(path)
    while isinstance(node, Mapping) and rest[0] in node.entries and len(rest) > 1:
        node = node.entries[rest.pop(0)].value
    if not isinstance(node, Mapping) or not node.entries or rest[0] in node.entries:
        return ()
    first = next(iter(node.entries.values())).key.span
    return (Edit(_before(first), f"{rest[0]}: {_nested(rest[1:], _shown(value))}{_separator(first)}"),)


def insert(near: Span, name: str, value: str) -> tuple[Edit, ...]:
    """Put `name value` among the flags that stand beside the env which holds the variable at `near`."""
    root = document(near.source)
    for path in _PARTS:
        part = tree.mapping(root, path)
        env = tree.mapping(part, "env")
        if part is None or env is None or not any(e.key.span.start == near.start for e in env.entries.values()):
            continue
        flag, *keys = name.removeprefix("--").split(".")
        entry = f"{flag}: {_nested(keys, _shown(value))}"
        flags = tree.mapping(part, "flags")
        if flags is not None and flags.entries:
            first = next(iter(flags.entries.values())).key.span
            return (Edit(_before(first), f"{entry}{_separator(first)}"),)
        if "flags" not in part.entries:
            key = part.entries["env"].key.span
            between = _separator(key)
            if between == ", ":
                return (Edit(_before(key), f"flags: {{{entry}}}, "),)
            line_start = key.source.text.rfind("\n", 0, key.start) + 1
            newline, indent = between.rstrip(" "), between.lstrip("\r\n")
            text = f"{indent}flags:{between}  {entry}{newline}"
            return (Edit(key.source.span(line_start, line_start), text),)
    return ()


def _below(entry: Entry, path: tuple[str, ...]) -> Entry | None:
    for part in path:
        if not isinstance(entry.value, Mapping) or part not in entry.value.entries:
            return None
        entry = entry.value.entries[part]
    return entry


def _nested(path: Sequence[str], value: str) -> str:
    """A value below keys, as flow YAML."""
    for key in reversed(path):
        value = f"{{{key}: {value}}}"
    return value


def _shown(value: str) -> str:
    return value if _BARE.fullmatch(value) else quoted(value)


def _before(span: Span) -> Span:
    return span.source.span(span.start, span.start)


def _separator(key: Span) -> str:
    """What stands between two entries of the mapping that a key is of."""
    text = key.source.text
    indent = text[text.rfind("\n", 0, key.start) + 1 : key.start]
    newline = "\r\n" if "\r\n" in text else "\n"
    return ", " if indent.strip() else f"{newline}{indent}"
