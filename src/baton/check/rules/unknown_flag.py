"""A flag that no release of the engine takes.

The engine's parser stops at the first flag it does not know: `unrecognized arguments`, exit code 2, and the pod
restarts for ever. Mostly it is a slip of the pen, a flag of another program (`vllm serve` has flags that `dynamo.vllm`
has not), or a flag of a fork.

Write the flag as the release that runs spells it; `vllm serve --help=all` prints them. Of an image that is nobody's
release this is a note: its builder may have added the flag. Beside a plugin (`--omni`, Ascend, Gaudi, Neuron) only
slips of the pen are noted.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.catalogue import history
from baton.check.bundle import Bundle
from baton.check.commands import versions
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts import absent, lives, successors
from baton.check.facts.absent import Absence
from baton.check.facts.plugins import has_plugin
from baton.check.finding import Edit, Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ("https://github.com/vllm-project/vllm/issues/27347", "https://github.com/kserve/kserve/issues/6037")
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-model-length 4096
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-model-len 4096 --max_num_seqs=16
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every option that no release has, whichever runs."""
    for launch, option, absence in absent.flags(bundle, "never"):
        if not has_plugin(launch) or _is_slip(launch, option):
            yield _finding(launch, option, absence)


def _is_slip(launch: Launch, option: Argument) -> bool:
    """Whether it is but a few letters away from a flag: then it is a fault even where a plugin may bring flags."""
    name = option.written.value.split(".")[0]
    return any(successors.is_slip(name, c) for c in history.close_flags(launch.version.catalogues[-1], name, 1))


def _finding(launch: Launch, option: Argument, absence: Absence) -> Finding:
    name = option.written.value.split(".")[0]
    close = history.close_flags(launch.version.catalogues[-1], name, 1)
    fix = Fix("remove it", fixes.remove_option(option))
    if close:
        fix = Fix(f"did you mean {close[0]}?", _renaming(launch, option, close[0]), is_guess=True)
    fix = fix if absence.is_sure else Fix(f"{fix.words} (unless the image is built to take it)")
    return Finding(
        span=option.written.span,
        message=f"{launch.engine} has no flag {name}",
        evidence=tuple(_evidence(launch, name, absence)),
        fix=fix,
        harm=absence.harm,
    )


def _renaming(launch: Launch, option: Argument, name: str) -> tuple[Edit, ...]:
    """The edit, where the flag meant is not given already and takes as many values as are written."""
    match = launch.version.catalogues[-1].flag(name)
    written = option.written.value
    if match is None or launch.all_given(match.name) or "." in written or not successors.is_slip(written, name):
        return ()
    flag = match.flag
    is_switch = match.negated or flag.bare or (flag.type == "bool" and flag.negation)
    fits = len(option.words) == (0 if is_switch else 1) or (flag.nargs in ("+", "*") and option.words)
    return fixes.rename_option(option, name) if fits else ()


def _evidence(launch: Launch, name: str, absence: Absence) -> Iterator[str]:
    yield absent.words(launch, absence)
    takes = lives.takes(name)
    if launch.engine == "dynamo.vllm" and any(takes(c) for c in versions.candidates("vllm")):
        yield "vllm serve takes it, but dynamo.vllm starts the engine without vLLM's own server"
    if launch.engine != "dynamo.frontend" and any(takes(c) for c in versions.candidates("dynamo.frontend")):
        yield "dynamo.frontend takes it"
    if launch.engine == "vllm" and any(takes(c) for c in versions.candidates("dynamo.vllm")):
        yield "dynamo.vllm takes it, vllm serve does not"
