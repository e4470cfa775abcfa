"""A variable that the release which runs reads no more.

vLLM looks only for the names it knows, so a variable of older releases does nothing: no error, at most one line in the
log (`Unknown vLLM environment variable detected`, since 0.17). Recipes keep them for years, and people go on tuning
them: the chunk size of DeepSeek's published recipe is one.

Write what took its place; where nothing did, take it out, so that nobody believes in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from baton.check.bundle import Bundle
from baton.check.commands import versions
from baton.check.edits import replace
from baton.check.facts import absent, lives, successors, variables
from baton.check.facts.absent import Absence
from baton.check.facts.variables import Setting
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.WASTED
SEE = (
    "https://github.com/vllm-project/vllm/pull/47214",
    "https://github.com/llm-d-incubation/llm-d-fast-model-actuation/issues/597",
)
FIRES = """\
#!/bin/bash
export VLLM_MOE_DP_CHUNK_SIZE=384
pip install vllm==0.32.0
vllm serve m
"""
SILENT = """\
#!/bin/bash
export VLLM_MOE_DP_CHUNK_SIZE=384
pip install vllm==0.19.1
vllm serve m
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every VLLM_ variable that only earlier releases read."""
    for sharing in replace.together(variables.settings(bundle)):
        for setting in sharing:
            absence = absent.of(setting.launch, lambda c, name=setting.name: name in c.envs)  # type: ignore[misc]
            if absence is not None and absence.kind == "gone" and (absence.is_sure or not _is_default(setting)):
                yield _finding(setting, absence, sharing)


def _is_default(setting: Setting) -> bool:
    """Whether it says what the last release that read it did by itself: then nothing is lost."""
    readers = [c.envs[setting.name] for c in versions.candidates(setting.launch.engine) if setting.name in c.envs]
    default = readers[-1].default if readers else None
    if isinstance(default, bool):
        return setting.word.value.lower() in (("1", "true") if default else ("0", "false"))
    return setting.word.is_known and setting.word.value == str(default)


def _finding(setting: Setting, absence: Absence, sharing: Sequence[Setting]) -> Finding:
    launch, name = setting.launch, setting.name
    evidence = (absent.words(launch, absence, ("read", "reads", "reads")),)
    if not absence.is_sure:
        return Finding(
            span=setting.span,
            message=f"{launch.engine} does not read {name} since {absence.life.until if absence.life else 'long'}",
            evidence=evidence,
            fix=successors.if_newer(launch, absence, "env", name),
            harm=Harm.UNKNOWN,
        )
    fix, instead = replace.variable(sharing)
    return Finding(
        span=setting.span,
        message=f"{launch.version.name} does not read {name} any more, so it does nothing",
        evidence=evidence,
        fix=fix or Fix(f"remove {name}", setting.removal()),
        see=lives.threads(instead),
    )
