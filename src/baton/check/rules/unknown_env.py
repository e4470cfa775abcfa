"""A VLLM_ variable that no release reads.

vLLM looks only for the names it knows. One that is misspelt, or belongs to somebody's fork, does nothing; releases from
0.17 on log `Unknown vLLM environment variable detected`, older ones say nothing at all. What it should have set stays
at its default.

Write the name as the release that runs has it, or take the variable out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.catalogue import history
from baton.check.bundle import Bundle
from baton.check.facts import absent, successors, variables
from baton.check.facts.absent import Absence
from baton.check.facts.plugins import has_plugin
from baton.check.facts.variables import Setting
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.WASTED
SEE = ("https://github.com/gpustack/gpustack/issues/5556",)
FIRES = """\
#!/bin/bash
docker run -e VLLM_USE_DEEPGEMM=1 vllm/vllm-openai:v0.32.0 --model m
"""
SILENT = """\
#!/bin/bash
export VLLM_IMAGE=vllm/vllm-openai:v0.32.0
docker run -e VLLM_USE_DEEP_GEMM=1 "$VLLM_IMAGE" --model m
"""
# Read by a plugin that vLLM loads: https://github.com/vllm-project/vllm-ascend/issues/9986.
_PLUGINS = ("VLLM_ASCEND_",)


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every VLLM_ variable that no known release reads and the file itself does not use."""
    for setting in variables.settings(bundle):
        absence = absent.of(setting.launch, lambda c, name=setting.name: name in c.envs)  # type: ignore[misc]
        if absence is not None and absence.kind == "never" and not _is_own(setting) and _is_worth(setting):
            yield _finding(setting, absence)


def _is_own(setting: Setting) -> bool:
    """Whether a plugin reads the variable, or the file itself: then it is the author's, no message to the engine."""
    return (
        setting.name.startswith(_PLUGINS)
        or re.search(rf"\$[({{]?{re.escape(setting.name)}\b", setting.span.source.text) is not None
    )


def _is_worth(setting: Setting) -> bool:
    """Whether no plugin may read it, or it is but a few letters away from one that vLLM reads."""
    close = history.close_envs(setting.launch.version.catalogues[-1], setting.name, 1)
    return not has_plugin(setting.launch) or any(successors.is_slip(setting.name, name) for name in close)


def _finding(setting: Setting, absence: Absence) -> Finding:
    launch, name = setting.launch, setting.name
    close = history.close_envs(launch.version.catalogues[-1], name, 1)
    fix = Fix(f"remove {name}", setting.removal())
    if close:
        is_slip = close[0] not in launch.env and successors.is_slip(name, close[0])
        fix = Fix(f"did you mean {close[0]}?", setting.renaming(close[0]) if is_slip else (), is_guess=True)
    fix = fix if absence.is_sure else Fix(f"{fix.words} (unless the image is built to read it)")
    return Finding(
        span=setting.span,
        message=f"no release of vLLM reads {name}{', so it does nothing' if absence.is_sure else ''}",
        evidence=(absent.words(launch, absence, ("read", "reads", "reads")),),
        fix=fix,
        harm=absence.harm,
    )
