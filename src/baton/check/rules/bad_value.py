"""A flag's value that the engine's parser refuses.

A number that is none, a name that is not among those the release knows, a value given to a switch: the parser stops
with `invalid choice`, `invalid int value` or `ignored explicit argument`, exit code 2, and the pod restarts for ever.
Choices come and go with releases, as backends do.

Write one of the values the release takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from baton.catalogue import history
from baton.catalogue.engine import EngineCatalogue, Flag
from baton.check.bundle import Bundle
from baton.check.commands import values
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts import absent, lives
from baton.check.finding import Edit, Finding, Fix, Harm
from baton.check.shell.script import Word

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-num-seqs many --kv-cache-dtype fp9 --enforce-eager=true
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-num-seqs 16 --max-model-len 8k --kv-cache-dtype fp8 --enforce-eager
"""
_JSON = ("json", "json_or_str", "config")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every value that all candidates refuse."""
    for launch in bundle.launches:
        for option in launch.options:
            if option.flag is None or option.path or not option.words:
                continue
            if _is_switch(option.flag):
                yield _switch(launch, option)
            else:
                yield from _words(launch, option)


def _is_switch(flag: Flag) -> bool:
    return flag.bare or (flag.type == "bool" and flag.negation)


def _switch(launch: Launch, option: Argument) -> Finding:
    value = option.words[0].value
    is_off = value.lower() in ("false", "0", "no", "off")
    word = f"--no-{option.name[2:]}" if is_off and option.flag is not None and option.flag.negation else option.name
    is_here = option.span.written == f"{option.written.value}={value}"
    says_so = not is_off or word != option.name
    edits = (Edit(option.span, word),) if is_here and says_so else ()
    return Finding(
        span=option.span if is_here else option.words[0].span,
        message=f"{option.name} takes no value, and {value!r} is given",
        evidence=(f"the parser exits: argument {option.name}: ignored explicit argument {value!r}",),
        fix=Fix(f"write {word}" if says_so else f"remove {option.name}", edits),
    )


def _words(launch: Launch, option: Argument) -> Iterator[Finding]:
    for word in option.words:
        if not word.is_known:
            continue
        said = [_refusal(c.flags.get(option.name), word.value) for c in launch.version.catalogues]
        found = [s for s in said if s is not None]
        if found and all(found):
            yield _finding(launch, option, word, found[-1])


def _refusal(flag: Flag | None, text: str) -> str | None:
    """Why a release refuses a value; "" if it takes it, None if it has no such flag."""
    if flag is None:
        return None
    try:
        if flag.type not in _JSON:
            values.of_word(flag, text)
    except ValueError as error:
        return str(error)
    return ""


def _finding(launch: Launch, option: Argument, word: Word, said: str) -> Finding:
    flag = launch.flag(option.name) or option.flag
    choices = [str(c) for c in flag.choices] if flag is not None else []
    close = history.close(word.value, choices, 1)
    instead = lives.replacement(launch, "value", f"{option.name} {word.value}")
    new = instead.by if instead is not None and instead.by in choices else close[0] if close else None
    is_guess = instead is None or new != instead.by
    meant = f"did you mean {new}?" if is_guess else f"write {new}"
    words = meant if new else f"write one of {values.listed(choices)}" if choices else "write a number"
    edits = fixes.replace_text(word.text, new) if new else ()
    return Finding(
        span=word.span,
        message=f"{launch.version.name} refuses {option.name} {word.value}",
        evidence=(said, *_since(launch, option.name, word.value)),
        fix=Fix(words, edits, is_guess),
        see=lives.threads(instead),
    )


def _since(launch: Launch, name: str, value: str) -> Iterator[str]:
    """When the value was taken, if ever."""

    def has(catalogue: EngineCatalogue) -> bool:
        flag = catalogue.flags.get(name)
        return flag is not None and value in flag.choices

    taking: Callable[[EngineCatalogue], bool] = has
    absence = absent.of(launch, taking)
    if absence is not None and absence.life is not None:
        yield absent.words(launch, absence)
