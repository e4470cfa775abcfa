"""What one released engine accepts, read from `engines/`: flags, keys of config flags, environment variables, names.

Knows how the engine's own argument parser finds a flag: dashes and underscores, --no-x, aliases, abbreviations. Does
not know which of two versions is nearer, nor what a wrong flag does; that is for those who ask. Nothing is read at
import, and one version only when it is asked for.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left
from collections.abc import Mapping
from functools import cache, cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec

from baton.base.errors import ConfigError

_FOLDER = Path(__file__).parent / "engines"
_FILE = re.compile(r"^(?P<engine>.+)-(?P<version>\d[^-]*)\.json$")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What is true of a flag, of a key of a config and of a variable alike.

    type: bool, int, float, str, list, json, json_or_str (either), config (JSON of the class `config`),
        human_readable_int (1k is 1000, 1K is 1024), human_readable_int_or_auto, any, or the engine's own converter.
    choices: the values taken; empty if the parser takes any. known: values the engine names, among others it may take.
    default: UNSET where there is none or only the engine's machine tells it; then `default_source` may say how.
    optional: "None" and "" stand for none. env: the variable that overrides the default. deprecated: the engine's
    words for it.
    """

    type: str
    choices: tuple[Any, ...] = ()
    known: tuple[Any, ...] = ()
    default: Any = msgspec.UNSET
    default_source: str = ""
    optional: bool = False
    config: str = ""
    env: str = ""
    deprecated: str = ""


class Flag(Setting, frozen=True, kw_only=True):
    """One flag of a command line.

    negation: --no-NAME exists. bare: takes no value and has no negation. nargs as in argparse. repeats: each use adds
    one. frontend: belongs to the server in front of the engine, so programs that embed the engine lack it. hidden: not
    in the help. folded: values are compared in lower case, with dashes as underscores.
    """

    aliases: tuple[str, ...] = ()
    negation: bool = False
    bare: bool = False
    nargs: str | int | None = None
    const: Any = None
    repeats: bool = False
    group: str = ""
    frontend: bool = False
    hidden: bool = False
    folded: bool = False


class Key(Setting, frozen=True, kw_only=True):
    """One key of a config class; `items` is the type of a list's members."""

    items: str = ""


class Variable(Setting, frozen=True, kw_only=True):
    """One environment variable.

    any_case: choices are compared without case. unlisted: read somewhere, but not in the engine's own table, so that an
    engine that warns of unknown variables warns of it.
    """

    any_case: bool = False
    unlisted: bool = False


class Source(msgspec.Struct, frozen=True):
    """The released file a catalogue was read from."""

    file: str
    sha256: str


class Takes(msgspec.Struct, frozen=True):
    """How the parser reads names: --a_b as --a-b, and an unambiguous beginning as the whole."""

    underscores: bool = True
    abbreviations: bool = True


class EngineVersion(msgspec.Struct, frozen=True):
    """A released engine; `version` is None where a package asks for no exact one."""

    engine: str
    version: str | None = None


class FlagMatch(msgspec.Struct, frozen=True, kw_only=True):
    """A flag found: its full `name`, whether it was written as --no-NAME, and the keys after it in --name.key.key."""

    name: str
    flag: Flag
    negated: bool = False
    is_abbreviated: bool = False
    path: tuple[str, ...] = ()


class EngineCatalogue(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Everything one released engine accepts.

    `takes_engine_flags_of` is set for a program that also takes the flags of an engine it embeds (see `embedding`).
    `exact` are the flags of such a program that its own, stricter parser takes only as they are spelled here.
    """

    engine: str
    version: str
    format: int
    source: Source
    parser: Takes
    flags: dict[str, Flag]
    configs: dict[str, dict[str, Key]]
    envs: dict[str, Variable]
    enums: dict[str, tuple[str, ...]]
    takes_engine_flags_of: EngineVersion | None = None
    exact: frozenset[str] = frozenset()

    def flag(self, written: str) -> FlagMatch | None:
        """Return the flag that `written` (with or without =value) stands for; None if none or more than one."""
        name, path = self._normal(written)
        options = self.options
        if name in options:
            is_spelled = name == written.split("=", 1)[0].split(".", 1)[0] or options[name][0] not in self.exact
            return self._match(*options[name], path, False) if is_spelled else None
        if not self.parser.abbreviations or len(name) < 2:
            return None
        targets = {options[o] for o in self.abbreviated(written)}
        return self._match(*targets.pop(), path, True) if len(targets) == 1 else None

    def abbreviated(self, written: str) -> tuple[str, ...]:
        """Return the option strings that begin with `written`; several flags among them are ambiguous to argparse."""
        name, _ = self._normal(written)
        if not name.strip("-"):
            return ()
        first = bisect_left(self._sorted, name)
        found = takewhile(lambda o: o.startswith(name), self._sorted[first:])
        return tuple(o for o in found if o.startswith("--") is name.startswith("--"))

    def key(self, config: str, path: str | tuple[str, ...]) -> Key | None:
        """Return the key that `path` ("pass_config.fuse_norm_quant") names in a config class; None if there is none.

        Keys below one that takes any JSON are not known, so they give None too: see `is_open`.
        """
        first, *rest = path.split(".") if isinstance(path, str) else path
        key = self.configs.get(config, {}).get(first.removesuffix("+"))
        return key if key is None or not rest else self.key(key.config, tuple(rest))

    def is_open(self, config: str, path: str | tuple[str, ...]) -> bool:
        """Say whether a key before the last of `path` takes any JSON, so that nothing below it can be judged."""
        parts = path.split(".") if isinstance(path, str) else list(path)
        found = (self.key(config, tuple(parts[:n])) for n in range(1, len(parts)))
        return any(key is not None and not key.config for key in found)

    def env(self, name: str) -> Variable | None:
        """Return an environment variable; None if the engine does not read it."""
        return self.envs.get(name)

    def _normal(self, written: str) -> tuple[str, tuple[str, ...]]:
        name = written.split("=", 1)[0]
        if re.fullmatch(r"-O\d", name):
            name = "-O" if any("-O" in f.aliases for f in self.flags.values()) else "--optimization-level"
        name, *path = name.split(".")
        is_long = name.startswith("--")
        return (name.replace("_", "-") if is_long and self.parser.underscores else name), tuple(path)

    @cached_property
    def options(self) -> dict[str, tuple[str, bool]]:
        """Every option string with the flag it stands for and whether it negates it."""
        found = {}
        for name, flag in self.flags.items():
            for option in (name, *flag.aliases):
                found[option] = (name, False)
                if flag.negation and option.startswith("--"):
                    found[f"--no-{option[2:]}"] = (name, True)
        return found

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.options)

    def _match(self, name: str, negated: bool, path: tuple[str, ...], is_short: bool) -> FlagMatch:
        return FlagMatch(name=name, flag=self.flags[name], negated=negated, is_abbreviated=is_short, path=path)


def engines() -> tuple[str, ...]:
    """Return the names of the engines the catalogue has."""
    return tuple(sorted(_files()))


def versions(engine: str) -> tuple[str, ...]:
    """Return the versions of an engine, oldest first; raises ConfigError for an engine the catalogue lacks."""
    return tuple(sorted(_of(engine), key=version_key))


def nearest(engine: str, stated: str) -> str | None:
    """Return the release of the catalogue that stands for a stated one: itself, or another patch of its minor."""
    known = versions(engine)
    if stated in known:
        return stated
    return next((v for v in reversed(known) if version_key(v)[:2] == version_key(stated)[:2]), None)


def load_engine(engine: str, version: str) -> EngineCatalogue:
    """Read the catalogue of one engine version.

    Raises ConfigError, which lists the versions there are, for a version that is not among them.
    """
    files = _of(engine)
    package = engine.split(".", maxsplit=1)[0]
    if version not in files:
        raise ConfigError(
            f"{engine} {version} is not in the catalogue, which has {', '.join(versions(engine))}. "
            f"Name one of these, or add it: python -m baton.catalogue.extract {package} {version}"
        )
    return msgspec.json.decode(files[version].read_bytes(), type=EngineCatalogue)


def file_sha256(engine: str, version: str) -> str | None:
    """Return the SHA-256 of the file that `load_engine` reads; None for a version that the catalogue lacks."""
    path = _of(engine).get(version)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None else None


def embedding(program: EngineCatalogue, engine: EngineCatalogue) -> EngineCatalogue:
    """Return a program together with the engine it embeds: its own flags and variables, and those of the engine.

    The flags of the engine's own server are not among them. The program's parser takes what it knows, the engine's
    parser the rest.
    """
    is_strict = engine.parser.underscores and not program.parser.underscores
    inner = {name: flag for name, flag in engine.flags.items() if not flag.frontend}
    return msgspec.structs.replace(
        program,
        parser=engine.parser,
        exact=frozenset(program.flags) if is_strict else frozenset(),
        flags=inner | program.flags,
        configs=engine.configs | program.configs,
        envs=engine.envs | program.envs,
        enums=engine.enums | program.enums,
    )


@cache
def version_key(version: str) -> tuple[int, ...]:
    """Return a version as numbers to sort by: its dotted numbers, then those of a post-release."""
    return tuple(int(n) for n in re.findall(r"\d+", version))


def _files() -> Mapping[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(_FOLDER.glob("*.json")):
        name = _FILE.match(path.name)
        if name is not None:
            found.setdefault(name["engine"], {})[name["version"]] = path
    return found


def _of(engine: str) -> dict[str, Path]:
    files = _files()
    if engine not in files:
        raise ConfigError(f"engine {engine!r} is not in the catalogue, which has {', '.join(sorted(files))}")
    return files[engine]
