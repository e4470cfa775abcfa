"""A variable that only later releases than the one which runs read.

vLLM looks only for the names it knows, so a variable of a later release does nothing: no error, at most one line in the
log (`Unknown vLLM environment variable detected`, since 0.17). It comes of a guide for a newer release, or of an image
that was left behind.

Run a release that reads it, or take it out.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.facts import absent, variables
from baton.check.facts.absent import Absence
from baton.check.facts.variables import Setting
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.WASTED
SEE = ()
FIRES = """\
apiVersion: v1
kind: Pod
metadata: {name: engine}
spec:
  containers:
    - name: engine
      image: vllm/vllm-openai:v0.11.0
      args: [--model, m]
      env:
        - name: VLLM_GPU_SYNC_CHECK
          value: warn
        - name: VLLM_LOGGING_LEVEL
          value: INFO
"""
SILENT = FIRES.replace("v0.11.0", "v0.33.0")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every VLLM_ variable that only later releases read."""
    for setting in variables.settings(bundle):
        absence = absent.of(setting.launch, lambda c, name=setting.name: name in c.envs)  # type: ignore[misc]
        if absence is not None and absence.kind == "new":
            yield _finding(setting, absence)


def _finding(setting: Setting, absence: Absence) -> Finding:
    launch, name = setting.launch, setting.name
    first = absence.life.first if absence.life is not None else "a later release"
    return Finding(
        span=setting.span,
        message=f"{launch.version.name} does not read {name} yet, so it does nothing",
        evidence=(absent.words(launch, absence, ("read", "reads", "reads")),),
        fix=Fix(f"run {first} or later, or remove {name}", setting.removal(), is_guess=True),
        harm=absence.harm,
    )
