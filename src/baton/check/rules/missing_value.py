"""A flag without the value it takes.

The engine's parser stops: `expected one argument`, exit code 2. Mostly the value was an empty variable, or it begins
with a dash, so that it is taken for a flag itself; then it must be joined with an equals sign. A key of a config,
`--compilation-config.mode`, is worse: whatever word follows becomes its value.

Write the value, or take the flag out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.catalogue.engine import Flag
from baton.check.bundle import Bundle
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.finding import Finding, Fix, Harm
from baton.check.shell.script import Word

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-model-len --enforce-eager
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-model-len 4096 --enforce-eager --served-model-name a b
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every option that has fewer values than it takes."""
    for launch in bundle.launches:
        for option in launch.options:
            least = _least(option)
            if len(option.words) < least:
                yield _finding(launch, option, least)


def _least(option: Argument) -> int:
    """How many values an option takes at least."""
    flag = option.flag
    if flag is None or option.negated:
        return 0
    if option.path:
        return 1
    if _is_switch(flag) or flag.nargs in ("?", "*") or re.match(r"-O.", option.written.value):
        return 0
    return flag.nargs if isinstance(flag.nargs, int) else 1


def _is_switch(flag: Flag) -> bool:
    return flag.bare or (flag.type == "bool" and flag.negation)


def _finding(launch: Launch, option: Argument, least: int) -> Finding:
    name = option.written.value
    follower = _follower(launch, option)
    says = f"expected {'one argument' if least == 1 else f'{least} arguments'}"
    evidence = f"the parser exits: argument {option.name}: {says}"
    if option.path and follower is not None:
        evidence = f"the parser takes the next word for its value: {follower.value!r}"
    if follower is not None and not option.path:
        evidence = f"{evidence}; the next word, {follower.value!r}, begins with a dash and counts as a flag"
    fix = Fix(f"give {name} its value, or remove it", fixes.remove_option(option), is_guess=True)
    return Finding(span=option.written.span, message=f"{name} has no value", evidence=(evidence,), fix=fix)


def _follower(launch: Launch, option: Argument) -> Word | None:
    """The word after an option."""
    here = next((at for at, word in enumerate(launch.words) if word.span == option.written.span), None)
    return launch.words[here + 1] if here is not None and here + 1 < len(launch.words) else None
