"""A key that a config does not have.

From vLLM 0.16 on every config refuses a key it does not know (`Unexpected keyword argument`): the engine exits before
it loads anything. Compilation's configs do so since 0.13. Older releases drop the key without a word, and what it
should have set stays at its default. Keys are renamed in most releases: what ran for a year stops at an upgrade.

Write the key as the release that runs has it.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.catalogue import history
from baton.check.bundle import Bundle
from baton.check.commands import values
from baton.check.commands.launch import Launch
from baton.check.edits import fixes, replace
from baton.check.facts import absent, config_keys, lives, successors
from baton.check.facts.absent import Absence
from baton.check.facts.config_keys import GivenKey
from baton.check.finding import Edit, Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --compilation-config '{"pass_config":{"enable_noop":true}}'
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --compilation-config '{"pass_config":{"eliminate_noops":true}}'
"""
# vllm/config/utils.py of 0.16.0: @config forbids extras; vllm/config/compilation.py of 0.13.0: these three do.
_ALL_REFUSE_SINCE, _SOME_REFUSE_SINCE = "0.16.0", "0.13.0"
_SOME = ("CompilationConfig", "PassConfig", "DynamicShapesConfig")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every key that the configs of the release lack; of nested ones for the outermost."""
    for launch in bundle.launches:
        lacking: list[tuple[str, ...]] = []
        for key in config_keys.given(launch):
            if any(key.path[: len(path)] == path for path in lacking):
                continue
            absence = absent.of(launch, config_keys.in_parent(key))
            if absence is not None and key.parent(launch.version.catalogues[-1]):
                lacking.append(key.path)
                yield _finding(launch, key, absence)


def _finding(launch: Launch, key: GivenKey, absence: Absence) -> Finding:
    newest = launch.version.catalogues[-1]
    parent, name = key.parent(newest), key.path[-1]
    siblings = [k for k in newest.configs.get(parent, {}) if (*key.path[:-1], k) != key.path]
    close = history.close(name, siblings, 1) if absence.kind == "never" else ()
    is_refused = _refuses(launch, parent)
    fix, instead = _fix(key, close, siblings), None
    if absence.kind == "gone" and absence.is_sure:
        moved, instead = replace.key(launch, key, _removal(key))
        fix = moved or fix
    if not absence.is_sure:
        is_gone = absence.kind == "gone"
        fix = successors.if_newer(launch, absence, "key", key.name) if is_gone else Fix(fix.words)
    return Finding(
        span=key.key.span(),
        message=_message(launch, key, absence, is_refused),
        evidence=(absent.words(launch, absence, ("had", "has", "has")),),
        fix=fix,
        see=lives.threads(instead),
        harm=absence.harm or (None if is_refused else Harm.WASTED),
    )


def _message(launch: Launch, key: GivenKey, absence: Absence, is_refused: bool) -> str:
    name, flag = ".".join(key.path), key.option.name
    if not absence.is_sure and absence.life is not None:
        return f"{flag} has no key {name} since {absence.life.until}"
    if is_refused or not launch.version.is_known:
        return f"{flag} of {launch.version.name} has no key {name}"
    return f"{flag} of {launch.version.name} has no key {name}, and drops it without a word"


def _fix(key: GivenKey, close: tuple[str, ...], siblings: list[str]) -> Fix:
    if close:
        is_slip = successors.is_slip(key.path[-1], close[0])
        return Fix(f"did you mean {close[0]}?", _renaming(key, close[0]) if is_slip else (), is_guess=True)
    return Fix(f"remove it; the keys there are {values.listed(sorted(siblings), 30)}", _removal(key), is_guess=True)


def _removal(key: GivenKey) -> tuple[Edit, ...]:
    if key.member is None:
        return fixes.remove_option(key.option)
    return fixes.remove_key(key.option.words[0].text, key.member.start, key.member.end)


def _renaming(key: GivenKey, new: str) -> tuple[Edit, ...]:
    """The key by another name, where that one is not given beside it."""
    text = key.option.words[0].value if key.member is not None else key.option.written.value
    return fixes.replace_text(key.key, new) if f'"{new}"' not in text else ()


def _refuses(launch: Launch, parent: str) -> bool:
    """Whether every release that it may be stops at a key its config class does not know."""
    return launch.is_between(first=_SOME_REFUSE_SINCE if parent in _SOME else _ALL_REFUSE_SINCE)
