"""A variable's value that the engine cannot read.

vLLM turns variables into numbers and compares others with a list of choices when it first needs them, which is at the
start for most: `ValueError`, and the engine exits with a traceback that names the value but often not the variable.

Write a value of the kind the variable has.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.catalogue import history
from baton.check.bundle import Bundle
from baton.check.commands import values
from baton.check.edits import fixes
from baton.check.facts import absent, variables
from baton.check.facts.variables import Setting
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
apiVersion: v1
kind: Pod
metadata: {name: engine}
spec:
  containers:
    - name: engine
      image: vllm/vllm-openai:v0.32.0
      args: [--model, m]
      env:
        - name: VLLM_WORKER_MULTIPROC_METHOD
          value: spwan
        - name: VLLM_ENGINE_READY_TIMEOUT_S
          value: 30m
"""
SILENT = FIRES.replace("spwan", "spawn").replace("30m", '"1800"')


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every value that all candidates refuse."""
    for prefix in ("VLLM_", "DYN_"):
        for setting in variables.settings(bundle, prefix):
            if not setting.word.is_known:
                continue
            known = [c.envs[setting.name] for c in setting.launch.version.catalogues if setting.name in c.envs]
            said = [values.of_variable(variable, setting.word.value) for variable in known]
            if said and all(said):
                yield _finding(setting, str(said[-1]), [str(c) for c in known[-1].choices])


def _finding(setting: Setting, said: str, choices: list[str]) -> Finding:
    launch, value = setting.launch, setting.word.value
    close = history.close(value, choices, 1)
    fix = Fix(f"write one of {values.listed(choices)}" if choices else "write a plain number")
    if close:
        fix = Fix(f"did you mean {close[0]}?", fixes.replace_text(setting.word.text, close[0]), is_guess=True)
    return Finding(
        span=setting.word.span,
        message=f"{launch.version.name} cannot read {setting.name}={value}",
        evidence=(said, absent.release(launch)),
        fix=fix,
    )
