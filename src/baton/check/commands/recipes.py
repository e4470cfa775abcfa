"""Baton's own recipes as launches: each role's exact command line, every word standing where the recipe says it.

Another release asked for by `--engine` takes the place of the recipe's before its eras are applied: what is checked is
what that release would be started with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from baton.base.errors import ConfigError
from baton.check.commands import arguments, versions
from baton.check.commands.launch import Launch
from baton.check.edits import entries
from baton.check.shell.script import Word
from baton.check.text import Source, Span, Text
from baton.check.yaml import tree
from baton.check.yaml.tree import Fault, Node

if TYPE_CHECKING:
    from baton.recipe.recipe import Model

_PLACE_ENV = ("VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT")
_AT = re.compile(r":(?P<line>\d+):(?P<column>\d+): (?P<message>.*)$")
_FIELD = re.compile(r"[a-z_]+(\.[a-z_0-9]+)*(?=: )")
"""what a fault of the whole recipe begins with"""


def launches(source: Source, document: Node, override: tuple[str, str] | None) -> tuple[list[Launch], list[Fault]]:
    """Return one launch for each role of a recipe; for one that cannot be used no launch, but its faults."""
    from baton.engine.command import Place, serve_command  # noqa: PLC0415 - pydantic, for recipes alone
    from baton.engine.dynamo import vllm_of  # noqa: PLC0415
    from baton.recipe.deployment import resolve  # noqa: PLC0415
    from baton.recipe.document import parse  # noqa: PLC0415
    from baton.recipe.recipe import Recipe  # noqa: PLC0415

    found = []
    try:
        recipe = parse(source.text, Recipe, source="")
        package, release = override or ("vllm", recipe.engine.version)
        stated = vllm_of(release) if package == "dynamo" else release
        said = f"--engine {'-'.join(override)}" if override else "the recipe's engine.version"
        recipe = recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"version": stated})})
        deployment = resolve(recipe, Path(source.name).parent)
        version = versions.known("vllm", "vllm", stated, _span(document, "engine.version"), said)
        place = Place(host="0.0.0.0", http_port=8000, nixl_port=5600, dp_address="leader", dp_rpc_port=13345)
        for role in ("prefill", "decode"):
            engine = next(e for e in deployment.engines if e.role == role and e.replica == 0 and e.node_rank == 0)
            homes = _homes([era.holds(stated) for era in recipe.eras], role)
            words = tuple(_words(serve_command(deployment, engine, place).argv[2:], document, role, homes))
            parsed = arguments.parse(words, version.catalogues)
            start = _span(document, f"roles.{role}")
            launch = Launch(
                engine="vllm", start=start, words=words, options=parsed.options, positionals=parsed.positionals,
                env=_env(document, role, homes, engine.env), version=version, workload=None, container=None,
                is_complete=True, is_env_complete=True, role=role, role_span=start, intended=role,
                nodes=engine.num_nodes, gpus_per_node=engine.num_gpus, accelerator=deployment.hardware.accelerator,
                weights=_weights(document, deployment.model), repo=_repo(document),
            )  # fmt: skip
            found.append(launch)
    except ConfigError as error:
        return [], [_fault(source, document, line) for line in str(error).splitlines()]
    return found, []


def _homes(holds: Sequence[bool], role: str) -> tuple[str, ...]:
    """The paths whose `flags` and `env` decide for a role, the one that wins first: eras, the role's, the engine's."""
    eras = [index for index, in_era in enumerate(holds) if in_era]
    of_eras = [f"eras.{index}.{who}" for index in reversed(eras) for who in (role, "engine")]
    return (*of_eras, f"roles.{role}", "engine")


def _words(argv: tuple[str, ...], document: Node, role: str, homes: Sequence[str]) -> Iterator[Word]:
    """Every word of a command line, standing at the field it comes from."""
    at: tuple[Span, Node | None] = _span(document, f"roles.{role}"), None
    for word in argv:
        if word.startswith("--"):
            entry = _by_hand(document, homes, word[2:].removeprefix("no-"), word[2:])
            at = (entry.key.span, entry.value) if entry else _place(document, role, word[2:].removeprefix("no-"))
            key = entry.key.text if entry else None
            is_here = key is not None and word.endswith(key.value)
            yield Word(entries.as_word(word, key) if key is not None and is_here else Text.at(word, at[0]), at[0])
            continue
        value = at[1]
        is_same = isinstance(value, tree.Scalar) and value.text.value == word
        span = value.span if value is not None else at[0]
        yield Word(value.text if is_same and isinstance(value, tree.Scalar) else Text.at(word, span), span)


def _by_hand(document: Node, homes: Sequence[str], name: str, written: str) -> tree.Entry | None:
    """Where a recipe gives a flag among its flags."""
    for home in homes:
        flags = tree.mapping(document, f"{home}.flags")
        for key in (written, name):
            if flags is not None and key in flags.entries:
                return flags.entries[key]
    return None


def _place(document: Node, role: str, name: str) -> tuple[Span, Node | None]:
    """Where a recipe decides a flag by a typed field."""
    from baton.engine.command import FIELD_OF_FLAG  # noqa: PLC0415

    for field in re.findall(r"[a-z]\w*(?:\.[\w{}]+)*", FIELD_OF_FLAG.get(name, "")):
        node = tree.find(document, field.replace("{role}", role))
        if node is not None and not isinstance(node, tree.Sequence):
            return node.span, node
    return _span(document, f"roles.{role}"), None


def _env(document: Node, role: str, homes: Sequence[str], env: dict[str, str]) -> dict[str, Word]:
    found = {}
    for name, value in env.items():
        variables = (tree.mapping(document, f"{home}.env") for home in homes)
        entry = next((v.entries[name] for v in variables if v is not None and name in v.entries), None)
        if entry is not None:
            found[name] = Word(Text.at(value, entry.key.span), entry.key.span)
    span = _span(document, f"roles.{role}")
    return found | {name: Word(Text.at("set by baton", span), span, is_known=False) for name in _PLACE_ENV}


def _weights(document: Node, model: Model) -> Word:
    """The weights' number format; weights that are not quantized are taken to be stored as they are computed."""
    span = _span(document, "model.quantization")
    return Word(Text.at(model.dtype if model.quantization == "none" else model.quantization, span), span)


def _repo(document: Node) -> Word | None:
    found = tree.scalar(document, "model.repo")
    return Word(found.text, found.span) if found is not None else None


def _span(document: Node, path: str) -> Span:
    """Where a field stands; if it is left out, the nearest that is there."""
    node = None
    while path and node is None:
        node, path = tree.find(document, path), path.rpartition(".")[0]
    return (node or document).span


def _fault(source: Source, document: Node, line: str) -> Fault:
    found = _AT.match(line)
    if found is None:
        field = _FIELD.match(line)
        return Fault(_span(document, field[0] if field is not None else "roles"), line)
    start = source.offset(int(found["line"]), int(found["column"]))
    return Fault(source.span(start, start + 1), found["message"])
