"""A flag given twice, with different values.

The parser takes the last and forgets the others, JSON included: nothing is merged. Newer releases of vLLM mention it in
one line of the log; nothing else tells, and the person who tunes the first of the two tunes nothing.

Keep one of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.WASTED
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-num-seqs 256 --enforce-eager --max-num-seqs 64
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-num-seqs 64 --enforce-eager
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every use of a flag that a later one overrides."""
    for launch in bundle.launches:
        last = {_place(option): option for option in launch.options if option.name}
        for option in launch.options:
            wins = last.get(_place(option))
            if wins is None or wins is option or (option.flag is not None and option.flag.repeats):
                continue
            if _is_list(option) or not (_is_known(option) and _is_known(wins)) or _given(option) == _given(wins):
                continue
            yield _finding(launch, option, wins)


def _place(option: Argument) -> tuple[str, ...]:
    return option.name, *option.path


def _is_list(option: Argument) -> bool:
    """Whether it adds to a list: --flag.key+ does."""
    return bool(option.path) and option.path[-1].endswith("+")


def _is_known(option: Argument) -> bool:
    return option.written.is_known and all(word.is_known for word in option.words)


def _given(option: Argument) -> tuple[object, ...]:
    return option.negated, *(word.value for word in option.words)


def _finding(launch: Launch, option: Argument, wins: Argument) -> Finding:
    name = option.written.value
    taken = " ".join([wins.written.value, *(word.value for word in wins.words)])
    return Finding(
        span=option.span,
        message=f"{name} is given again, so this one does nothing",
        evidence=(f"the parser takes the last, {taken}",),
        fix=Fix(f"remove this {name}, or the other", fixes.remove_option(option), is_guess=True),
        also=((wins.span, "this one counts"),),
    )
