"""Containers of a pod as Kubernetes would start them: words of the command line, environment, resources, mounts.

Fills in `$(VAR)` as the kubelet does. Does not know what an image's own entrypoint or environment is, nor what stands
in Secrets and ConfigMaps.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass

from baton.check.shell.script import Word
from baton.check.text import Span, Text
from baton.check.yaml import tree
from baton.check.yaml.tree import Mapping, Node, Scalar

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_SERVICE_VARIABLE = re.compile(r".*_SERVICE_(HOST|PORT.*)")
_SHELL_SCRIPT_FOLLOWS = re.compile(r"-[a-zA-Z]*c")
_LONGEST = 128 * 1024  # Linux starts no program with a longer argument or variable
NOTHING = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True, eq=False)
class Variable:
    """One entry of a container's env.

    word: its value; not known if it comes from a Secret, a field or a template. source: the `valueFrom` mapping, if
    any. span: the whole list item, from `name` to the end of its value.
    """

    name: str
    key: Scalar
    word: Word
    source: Mapping | None
    span: Span


@dataclass(frozen=True, slots=True, eq=False)
class Container:
    """One container.

    command and args: None if not given. env: by name, the last of a name. env_from: names of Secrets and ConfigMaps,
    as written. resources: requests and limits by resource name ("nvidia.com/gpu", "rdma/ib", "memory"), limits first
    where both are given; a DynamoGraphDeployment's `gpu` is "nvidia.com/gpu", its `custom` is flattened. mounts: volume
    or claim name by path. probes: "startup", "liveness", "readiness", those given. security: its securityContext.
    node: the container as written; for a DynamoGraphDeployment, whatever holds most of it. span: where to point.
    is_main: what the workload is about, not a sidecar or an init container. is_env_complete: False if the manifest
    gives it variables that stand elsewhere (envFrom, a template).
    """

    name: str | None
    image: Scalar | None
    command: tuple[Word, ...] | None
    args: tuple[Word, ...] | None
    env: MappingOf[str, Variable]
    env_from: tuple[Scalar, ...]
    requests: MappingOf[str, Scalar]
    limits: MappingOf[str, Scalar]
    mounts: MappingOf[str, Scalar]
    probes: MappingOf[str, Mapping]
    security: Mapping | None
    node: Mapping
    span: Span
    is_init: bool = False
    is_main: bool = True
    is_env_complete: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Environment:
    """What reaches a container as environment; see Container for the fields.

    injected: names of variables that a controller adds, and so has a value for that is not known here.
    """

    variables: MappingOf[str, Variable]
    env_from: tuple[Scalar, ...] = ()
    is_complete: bool = True
    injected: re.Pattern[str] = NOTHING

    def may_set(self, name: str) -> bool:
        """Whether a variable that is not among `variables` may be set all the same."""
        return not self.is_complete or bool(self.injected.fullmatch(name) or _SERVICE_VARIABLE.fullmatch(name))


def environment(
    node: Mapping,
    before: Sequence[Node | None] = (),
    secrets: Sequence[Node | None] = (),
    injected: re.Pattern[str] = NOTHING,
) -> Environment:
    """Return the environment of a container: lists of env entries that come first, its own, and its envFrom.

    secrets: names of Secrets that a controller adds to its envFrom.
    """
    lists = [*before, child(node, "env")]
    sources = child(node, "envFrom")
    names = [
        tree.scalar(item, f"{kind}.name") for item in tree.items(sources) for kind in ("secretRef", "configMapRef")
    ]
    env_from = tuple(name for name in (*map(tree.scalar, secrets), *names) if name)
    is_complete = not (env_from or tree.items(sources) or is_open(sources) or any(map(is_open, lists)))
    if child(node, "env") is None and not node.is_complete:
        is_complete = False
    entries = [item for each in lists for item in tree.items(each)]
    if any(_is_nameless(item) for item in entries):
        is_complete = False
    return Environment(_variables(entries, is_complete, injected), env_from, is_complete, injected)


def read_container(node: Mapping, env: Environment, is_init: bool = False, is_main: bool = True) -> Container:
    """Return a container as it is written, with the environment found for it."""
    name, image = tree.scalar(child(node, "name")), tree.scalar(child(node, "image"))
    command = _words(child(node, "command"), env, None)
    resources = child(node, "resources")
    return Container(
        name=known(name),
        image=image,
        command=command,
        args=_words(child(node, "args"), env, command[-1] if command else None),
        env=env.variables,
        env_from=env.env_from,
        requests=scalars(child(resources, "requests")),
        limits=scalars(child(resources, "limits")),
        mounts=mounts(child(node, "volumeMounts"), "mountPath"),
        probes=probes(node),
        security=tree.mapping(child(node, "securityContext")),
        node=node,
        span=next((s.span for s in (name, image) if s), first_line(node.span)),
        is_init=is_init,
        is_main=is_main,
        is_env_complete=env.is_complete,
    )


def probes(node: Mapping) -> dict[str, Mapping]:
    """Return the probes of a container by what they are for."""
    found = {kind: tree.mapping(child(node, f"{kind}Probe")) for kind in ("startup", "liveness", "readiness")}
    return {kind: probe for kind, probe in found.items() if probe}


def mounts(node: Node | None, path_key: str) -> dict[str, Scalar]:
    """Return the volume's name by the path it is mounted at."""
    found = ((known(tree.scalar(child(item, path_key))), tree.scalar(child(item, "name"))) for item in tree.items(node))
    return {path: name for path, name in found if path and name}


def scalars(node: Node | None) -> dict[str, Scalar]:
    """Return the entries of a mapping that are single values."""
    found = {key: tree.scalar(child(node, key)) for key in (node.entries if isinstance(node, Mapping) else ())}
    return {key: value for key, value in found.items() if value}


def child(node: Node | None, key: str) -> Node | None:
    """Return what a key of a mapping holds; the key may have dots in it. An empty value counts as none."""
    entry = node.entries.get(key) if isinstance(node, Mapping) else None
    value = entry.value if entry else None
    return None if isinstance(value, Scalar) and value.value is None and value.is_known else value


def known(scalar: Scalar | None) -> str | None:
    """Return the text of a scalar; None if there is none, it is empty, or a template decides it."""
    return (scalar.text.value or None) if scalar and scalar.is_known else None


def is_open(node: Node | None) -> bool:
    """Whether a template decides a node or may add to it."""
    return node is not None and not (node.is_known if isinstance(node, Scalar) else node.is_complete)


def first_line(span: Span) -> Span:
    """Return a stretch, cut at the end of its first line."""
    end = span.source.text.find("\n", span.start, span.end)
    return span if end < 0 else Span(span.source, span.start, end)


def _is_nameless(item: Node) -> bool:
    return is_open(item) or (isinstance(item, Mapping) and is_open(child(item, "name")))


def _variables(items: Iterable[Node], is_complete: bool, injected: re.Pattern[str]) -> dict[str, Variable]:
    found: dict[str, Variable] = {}
    for item in items:
        key = tree.scalar(child(item, "name"))
        name = known(key)
        if not isinstance(item, Mapping) or key is None or name is None:
            continue
        spans = [entry.span for entry in item.entries.values()]
        span = min(spans, key=lambda s: s.start).to(max(spans, key=lambda s: s.end))
        word = _value(item, span, Environment(found, (), is_complete, injected))
        found[name] = Variable(name, key, word, tree.mapping(child(item, "valueFrom")), span)
    return found


def _value(item: Mapping, span: Span, earlier: Environment) -> Word:
    if child(item, "valueFrom") is not None:
        return Word(Text.at("", span), span, is_known=False)
    value = child(item, "value")
    if value is None:
        return Word(Text.at("", span), span, is_known=item.is_complete)
    if isinstance(value, Scalar):
        return _expanded(value, earlier)
    return Word(Text.at("", value.span), value.span, is_known=False)


def _words(node: Node | None, env: Environment, before: Word | None) -> tuple[Word, ...] | None:
    """Return the words of a command or args; `before` is the one that stands before them on the command line."""
    if node is None:
        return None
    if isinstance(node, Scalar):
        return (_expanded(node, env),) if node.is_known else (Word(node.text, node.span, False, is_splitting=True),)
    words: list[Word] = []
    for item in tree.items(node):
        if isinstance(item, Scalar):
            last = words[-1] if words else before
            words.append(_expanded(item, env, is_script=_takes_script(last)))
    if not node.is_complete:
        end = node.span.source.span(node.span.end, node.span.end)
        words.append(Word(Text.at("", end), end, False, is_splitting=True))
    return tuple(words)


def _takes_script(word: Word | None) -> bool:
    return word is not None and bool(_SHELL_SCRIPT_FOLLOWS.fullmatch(word.value))


def _expanded(scalar: Scalar, env: Environment, is_script: bool = False) -> Word:
    """Return a scalar as a word, its `$(VAR)` filled in and its `$$` unescaped.

    A reference that may be set but is not known makes the word unknown, but for a script: there it stays as written,
    a command substitution, whose outcome no reader of scripts knows either.
    """
    text = scalar.text
    if not scalar.is_known or "$" not in text.value:
        return Word(text, scalar.span, scalar.is_known)
    parts, done = [], 0
    for found in _REFERENCE.finditer(text.value):
        name = found[1]
        if name is None:
            parts += [text[done : found.start()], text[found.start() : found.start() + 1]]
        elif name in env.variables and env.variables[name].word.is_known:
            parts += [text[done : found.start()], env.variables[name].word.text]
        elif is_script or not (name in env.variables or env.may_set(name)):
            parts.append(text[done : found.end()])
        else:
            return Word(text, scalar.span, is_known=False)
        done = found.end()
    parts.append(text[done:])
    if sum(map(len, parts)) > _LONGEST:
        return Word(text, scalar.span, is_known=False)
    return Word(Text.join(parts), scalar.span)
