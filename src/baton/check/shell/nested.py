"""Which words of a command line are a script of their own, and where it runs: `bash -c S`, `ssh host S`, `eval S`."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from baton.check.shell.words import TEMPLATE, Word

SHELLS = frozenset({"bash", "sh", "dash", "zsh", "ksh", "ash"})
SCRIPT_SUFFIXES = (".sh", ".bash", ".sbatch", ".slurm")
_SWITCHERS = frozenset({"su", "runuser", "script", "flock"})
_CONTAINERS = frozenset({"kubectl", "oc", "docker", "podman", "nerdctl"})
_TERMINALS = frozenset({"tmux", "screen"})
_AT_START = _TERMINALS | {"eval"}
PRINTERS = frozenset({"echo", "printf", "grep", "egrep", "sed", "awk", "which", "type", "pkill", "pgrep"})
_ASSIGNERS = frozenset({"env", "sudo", "time"})
_SSH_OPTIONS_WITH_VALUE = frozenset("bcDEeFIiJLlmOopQRSWw")


class Where(Enum):
    """Where a nested script runs: HERE in the same shell, in a CHILD that gets its environment, or ELSEWHERE."""

    HERE = "here"
    CHILD = "child"
    ELSEWHERE = "elsewhere"


class Nested(NamedTuple):
    """A script among words, by index: its words (joined by blanks), its $0, $1 ..., and the word that runs it."""

    script: range
    arguments: range
    runner: int
    where: Where


def name_of(word: Word) -> str:
    """Return a program's name without its folder; "" if it is not known."""
    return word.value.rsplit("/", 1)[-1] if word.is_known else ""


def nested(words: Sequence[Word]) -> Nested | None:
    """Return the script that a command line holds; None if it holds none."""
    if not words or name_of(words[0]) in PRINTERS:
        return None
    where = Where.CHILD
    for at, word in enumerate(words):
        name = name_of(word)
        if name in _CONTAINERS:
            where = Where.ELSEWHERE
        elif name in SHELLS or name == "ssh" or name in _SWITCHERS or (at == 0 and name in _AT_START):
            found = _script_after(words, at, name)
            if found or name not in _SWITCHERS:
                runs = {"ssh": Where.ELSEWHERE, "eval": Where.HERE}.get(name, where)
                arguments = range(found.stop, len(words)) if name in SHELLS else range(0)
                return Nested(found, arguments, at, runs) if found else None
    return None


def _script_after(words: Sequence[Word], at: int, name: str) -> range:
    """Return the words that are a script for the program at `at`; an empty range if there are none."""
    start: int | None
    if name == "eval":
        return range(at + 1, len(words))
    if name == "ssh":
        return range(_after_options(words, at + 1, _SSH_OPTIONS_WITH_VALUE) + 1, len(words))
    if name in SHELLS:
        start = _command_string(words, at + 1)
    elif name in _TERMINALS:
        start = next((i for i, word in enumerate(words) if i > 1 and " " in word.value.strip()), None)
    else:
        start = next((i + 1 for i, word in enumerate(words) if i > at and word.value in {"-c", "--command"}), None)
    return range(start, start + 1) if start is not None and start < len(words) else range(0)


def runs_elsewhere(words: Sequence[Word]) -> bool:
    """Whether a command line runs on another machine or in another container, without the variables set here."""
    return any(name_of(word) in _CONTAINERS or name_of(word) == "ssh" for word in words)


def reads_script(words: Sequence[Word], body: str) -> bool:
    """Whether what a command line is given on its standard input is a shell script."""
    names = [name_of(word) for word in words] or [""]
    if names[0] == "ssh":
        host = _after_options(words, 1, _SSH_OPTIONS_WITH_VALUE)
        return host + 1 >= len(words) or not SHELLS.isdisjoint(names)
    if "sbatch" in names or not SHELLS.isdisjoint(names):
        return nested(words) is None and names[0] not in PRINTERS
    is_saved = "tee" in names and any(word.value.endswith(SCRIPT_SUFFIXES) for word in words)
    return is_saved or _says_script(body)


def _says_script(body: str) -> bool:
    """Whether a text says of itself that it is a shell script."""
    first = body.lstrip().split("\n", 1)[0]
    return first.startswith("#!") and not SHELLS.isdisjoint(first[2:].replace("/", " ").split())


def assigned(words: Sequence[Word]) -> dict[str, Word]:
    """Return the variables that `env A=B ...` among words sets for what follows."""
    found: dict[str, Word] = {}
    for at, word in enumerate(words):
        if name_of(word) in _ASSIGNERS:
            start = _after_options(words, at + 1, frozenset("uCgh"))
            for given in words[start:]:
                name, equals, _ = given.value.partition("=")
                if not (equals and name.isidentifier() and name.isascii()):
                    break
                known = given.is_known and not TEMPLATE.search(name)
                found[name] = Word(given.text[len(name) + 1 :], given.span, known)
    return found


def _command_string(words: Sequence[Word], at: int) -> int | None:
    """Return the index of the script of a shell's -c, options starting at `at`."""
    has_script = False
    while at < len(words):
        value = words[at].value
        if value in {"--", "-"}:
            at += 1
            break
        if not value.startswith(("-", "+")):
            break
        if value.startswith("--"):
            at += 2 if value in {"--rcfile", "--init-file"} else 1
            continue
        has_script = has_script or (value[0] == "-" and "c" in value)
        at += 1 + value.lower().count("o")
    return at if has_script and at < len(words) else None


def _after_options(words: Sequence[Word], at: int, with_value: frozenset[str]) -> int:
    """Return the index of the first word that is no option, nor the value of one."""
    while at < len(words) and words[at].value.startswith("-"):
        value = words[at].value
        if value == "--":
            return at + 1
        at += 2 if not value.startswith("--") and value[-1] in with_value and len(value) == 2 else 1
    return at
