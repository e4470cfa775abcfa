"""Shell text that stands inside other text: fenced blocks of Markdown, strings of YAML, services of Docker Compose."""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.check.commands import launches
from baton.check.text import Text
from baton.check.yaml import tree
from baton.check.yaml.tree import Node

_FENCE = re.compile(
    r"^[ \t]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)?(?P<fence>`{3,}|~{3,})[ \t]*(?:\{code-block\}[ \t]*)?(?P<kind>[\w-]*)"
    r"(?P<rest>[^\n`]*)\n(?P<body>.*?)^[ \t]*(?P=fence)[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_SHELLS = ("bash", "sh", "shell", "console", "zsh", "shell-session")
_COMMAND_LINE = re.compile(
    r"^[ \t]*(?:\$ )?(?:[A-Za-z_]\w*=\S*[ \t]+|sudo[ \t]+|nohup[ \t]+)*"
    r"(?:vllm serve|python3? -m|(?:docker|podman) run)\b",
    re.MULTILINE,
)
_PROSE = re.compile(r"(?:^|[^\w./-])([A-Za-z]+)[ ,:]+([A-Za-z]+)[,:]? +`?(?=vllm +serve\b)")
_WRAPPERS = frozenset(
    {"exec", "nohup", "sudo", "env", "time", "uv", "run", "srun", "ssh", "do", "then", "else", "docker"}
)
_OPTION = re.compile(r"\s--?[A-Za-z]")
_COMPOSE_ESCAPE = re.compile(r"\$\$|\\(?= )")


def fenced(text: Text) -> Iterator[Text]:
    """Yield the shell blocks of Markdown: those that say so, and those that say nothing and start with an engine."""
    for block in _FENCE.finditer(text.value):
        kind, body = block["kind"].lower(), block["body"]
        if kind in _SHELLS or (not kind and launches.mentions_engine(body) and _COMMAND_LINE.search(body)):
            yield text[block.start("body") : block.end("body")]


def in_string(text: Text) -> Iterator[Text]:
    """Yield what a string of a YAML file may run: itself, or the blocks of the Markdown that it is."""
    if "```" in text.value or "~~~" in text.value:
        yield from fenced(text)
    elif _OPTION.search(text.value) and launches.mentions_engine(text.value) and not _is_prose(text.value):
        yield text


def is_compose(document: Node) -> bool:
    """Say whether a YAML document is a Docker Compose file."""
    services = tree.mapping(document, "services")
    bodies = [tree.mapping(entry.value) for entry in services.entries.values()] if services is not None else []
    return any(body is not None and not body.entries.keys().isdisjoint(("image", "build")) for body in bodies)


def of_compose(text: Text) -> Text:
    """Return a command line as Compose hands it on: `$$` is a dollar, and a backslash before a blank goes away."""
    parts, at = [], 0
    for found in _COMPOSE_ESCAPE.finditer(text.value):
        parts.append(text[at : found.start()])
        at = found.start() + 1
    return Text.join([*parts, text[at:]]) if parts else text


def _is_prose(value: str) -> bool:
    """Whether every `vllm serve` stands in a sentence, behind two plain words."""
    said = [found for found in _PROSE.finditer(value) if _WRAPPERS.isdisjoint((found[1].lower(), found[2].lower()))]
    return bool(said) and len(said) == len(re.findall(r"vllm +serve\b", value)) and "vllm-openai" not in value
