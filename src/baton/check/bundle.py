"""Everything that is checked together: the files given, what they hold, and the engines they start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from baton.base.errors import ConfigError
from baton.check import embedded
from baton.check.commands import launches, recipes, versions
from baton.check.commands.launch import Launch
from baton.check.commands.launches import Invocation
from baton.check.kubernetes import manifests as kubernetes
from baton.check.kubernetes.manifests import Container, Manifests, Workload
from baton.check.shell import script as shell
from baton.check.shell.script import Word
from baton.check.text import Source, Text
from baton.check.yaml import tree
from baton.check.yaml.tree import Fault, Node

_SHELL_SUFFIXES = (".sh", ".bash", ".sbatch", ".slurm")


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """One file: its kind ("recipe", "yaml", "shell", "markdown"), its YAML documents if it has any, its faults."""

    source: Source
    kind: str
    documents: tuple[Node, ...]
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A prefill engine and a decode engine that hand KV over to each other."""

    prefill: Launch
    decode: Launch


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """All files of one run, read.

    manifests: their Kubernetes objects. invocations: every command they run, engines or not. launches: the engines and
    front doors among them. accelerator: a GPU of the catalogue that the person named (`--gpu`), None if not.
    """

    files: tuple[File, ...]
    manifests: Manifests
    invocations: tuple[Invocation, ...]
    launches: tuple[Launch, ...]
    accelerator: str | None = None

    @property
    def engines(self) -> tuple[Launch, ...]:
        """The launches that are engines, not front doors."""
        return tuple(launch for launch in self.launches if launch.is_engine)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Prefill and decode engines of one deployment: of one object, of one file, or the only two of a folder."""
        return tuple(_pairs(self.engines))

    @property
    def deployments(self) -> tuple[tuple[Launch, ...], ...]:
        """The launches that belong together, front doors among them: those of one graph; else those of one file."""
        return tuple(tuple(group) for group in _groups(self.launches))


def read_bundle(paths: Sequence[Path], *, engine: str | None = None, accelerator: str | None = None) -> Bundle:
    """Read files, "-" for standard input excluded.

    Raises   ConfigError for a file that cannot be read or an engine the catalogue has not got; never for what they hold
    """
    return of_sources([_source(path) for path in paths], engine=engine, accelerator=accelerator)


def of_sources(sources: Sequence[Source], *, engine: str | None = None, accelerator: str | None = None) -> Bundle:
    """Read sources that are already in memory; raises ConfigError for an engine the catalogue has not got."""
    override = versions.parse_engine(engine) if engine is not None else None
    files = tuple(_file(source) for source in sources)
    objects = kubernetes.objects(tuple(d for f in files if f.kind == "yaml" for d in f.documents))
    manifests = Manifests(objects, kubernetes.workloads(objects))
    invocations: list[Invocation] = []
    faults: dict[Source, list[Fault]] = {}
    started: list[Launch] = []
    for invocation, found in _invocations(files, manifests):
        invocations += invocation
        for fault in found:
            faults.setdefault(fault.span.source, []).append(fault)
    for workload in manifests.workloads:
        door = launches.front_door(workload, override)
        started += [door] if door is not None else []
    started += launches.launches(invocations, override)
    for file in files:
        if file.kind == "recipe":
            of_recipe, of_its = recipes.launches(file.source, file.documents[0], override)
            started += of_recipe
            faults.setdefault(file.source, []).extend(of_its)
    order = {file.source: at for at, file in enumerate(files)}
    started.sort(key=lambda launch: (order[launch.start.source], launch.start.start))
    files = tuple(replace(f, faults=(*f.faults, *faults.get(f.source, ()))) for f in files)
    return Bundle(files, manifests, tuple(invocations), tuple(started), accelerator)


def _source(path: Path) -> Source:
    try:
        return Source(str(path), path.read_text(encoding="utf-8-sig", errors="replace"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read it: {error.strerror}; give files, or folders that hold them") from error


def _file(source: Source) -> File:
    """A file by its name, or by what it holds."""
    suffix = Path(source.name).suffix.lower()
    if suffix == ".md":
        return File(source, "markdown", (), ())
    if suffix in _SHELL_SUFFIXES or source.text.startswith("#!"):
        return File(source, "shell", (), ())
    stream = tree.read(source)
    is_recipe = len(stream.documents) == 1 and tree.number(stream.documents[0], "baton") is not None
    return File(source, "recipe" if is_recipe else "yaml", stream.documents, stream.faults)


def _invocations(files: Sequence[File], manifests: Manifests) -> Iterator[tuple[list[Invocation], tuple[Fault, ...]]]:
    maps = _config_maps(manifests)
    seen: set[tuple[int, int]] = set()
    for workload in manifests.workloads:
        for container in workload.pod.containers:
            words = (*(container.command or ()), *(container.args or ()))
            seen.update((id(word.span.source), word.span.start) for word in words)
            if words:
                env = {**_from_maps(container, workload, maps), **{n: v.word for n, v in container.env.items()}}
                script = shell.command_of(words, env)
                written = "\n".join(word.value for word in words)
                yield [Invocation(c, workload, container, written) for c in script.commands], script.faults
    for file in files:
        for text in _scripts(file, seen):
            script = shell.read(text)
            yield [Invocation(c, script=text.value) for c in script.commands], script.faults


def _scripts(file: File, seen: set[tuple[int, int]]) -> Iterator[Text]:
    """Shell text of a file outside its containers: all of a script, fenced blocks, strings that start an engine."""
    whole = file.source.whole()
    if file.kind == "shell":
        yield whole
    elif file.kind == "markdown":
        yield from embedded.fenced(whole)
    elif file.kind == "yaml":
        for document in file.documents:
            is_compose = embedded.is_compose(document)
            for node in tree.walk(document):
                if isinstance(node, tree.Scalar) and (id(node.span.source), node.span.start) not in seen:
                    yield from embedded.in_string(embedded.of_compose(node.text) if is_compose else node.text)


def _config_maps(manifests: Manifests) -> dict[str, dict[str, Word]]:
    found = {}
    for config in manifests.of_kind("ConfigMap"):
        data = tree.mapping(config.node, "data")
        if config.name is not None and data is not None:
            values = {name: entry.value for name, entry in data.entries.items()}
            found[config.name] = {
                n: Word(v.text, v.span, v.is_known) for n, v in values.items() if isinstance(v, tree.Scalar)
            }
    return found


def _from_maps(container: Container, workload: Workload, maps: dict[str, dict[str, Word]]) -> dict[str, Word]:
    """What `envFrom` brings of the ConfigMaps that are among the files."""
    found: dict[str, Word] = {}
    for name in container.env_from:
        found |= maps.get(name.text.value, {})
    return found


def _pairs(engines: Sequence[Launch]) -> Iterator[Pair]:
    lone: dict[str, list[Launch]] = {}
    for group in _groups(engines):
        sides = {launch.side for launch in group} - {None}
        if sides == {"prefill", "decode"}:
            yield from _matched(group)
        elif len(sides) == 1:
            folder = str(Path(group[0].start.source.name).parent)
            lone.setdefault(folder, []).append(next(launch for launch in group if launch.side))
    for found in lone.values():
        if sorted(str(launch.side) for launch in found) == ["decode", "prefill"]:
            first, second = found
            yield Pair(first, second) if first.side == "prefill" else Pair(second, first)


def _matched(group: Sequence[Launch]) -> Iterator[Pair]:
    """Every prefill engine with every decode engine; where a file serves several models, those of one model only."""
    prefill, decode = ([launch for launch in group if launch.side == side] for side in ("prefill", "decode"))
    is_one_model = len({_serves(p) for p in prefill}) == 1 == len({_serves(d) for d in decode})
    yield from (Pair(p, d) for p in prefill for d in decode if is_one_model or _serves(p) == _serves(d))


def _serves(launch: Launch) -> str:
    served = launch.given("--served-model-name")
    word = served.words[0] if served is not None and served.words else launch.model
    return word.value if word is not None else ""


def _groups(launches: Sequence[Launch]) -> list[list[Launch]]:
    groups: dict[object, list[Launch]] = {}
    for launch in launches:
        groups.setdefault(_group(launch), []).append(launch)
    return list(groups.values())


def _group(launch: Launch) -> object:
    """What belongs together: the services of one graph; else the engines of one file."""
    workload = launch.workload
    if workload is not None and workload.is_dynamo:
        return id(workload.object.node)
    return id(launch.start.source)
