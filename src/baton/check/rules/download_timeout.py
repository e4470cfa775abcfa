"""A `kubectl wait` that gives up before the weights can be there.

`kubectl wait --timeout` ends with an error when the time is up, though the Job goes on. Whoever follows the text, or a
script with `set -e`, stops in the middle; whoever goes on starts engines on half a checkpoint.

Wait as long as the slowest network you know needs: bytes / bandwidth, and half as much again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.facts import checkpoints, kubectl
from baton.check.facts.checkpoints import GB, Checkpoint
from baton.check.facts.downloads import downloads
from baton.check.facts.kubectl import Kubectl
from baton.check.finding import Finding, Fix, Harm
from baton.check.shell.script import Word

HARM = Harm.FRAGILE
SEE = ()
_FILES = """\
apiVersion: batch/v1
kind: Job
metadata: {name: fetch}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: fetch
          image: python:3.12-slim
          command: [hf, download, deepseek-ai/DeepSeek-R1, --revision, 56d4cbb, --local-dir, /models/deepseek-r1]
---
apiVersion: v1
kind: Pod
metadata: {name: gate}
spec:
  containers:
    - name: gate
      image: bitnami/kubectl:1.33
      command: [kubectl, wait, --for=condition=Complete, job/fetch, --timeout=%s]
"""
FIRES = _FILES % "1200s"
SILENT = _FILES % "4h"
_BYTES_PER_S = GB // 8
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|m|s|ms)")
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every wait for a Job that is shorter than what the Job downloads takes."""
    waits = [command for command in kubectl.commands(bundle) if command.verb == "wait"]
    if not waits:
        return
    brought = _brought(bundle)
    for command in waits:
        held = [c for job in _jobs(command) for c in brought.get(job, {}).values()]
        for timeout in command.values("--timeout")[-1:]:
            if held:
                yield from _findings(timeout, held)


def _findings(timeout: Word, held: list[Checkpoint]) -> Iterator[Finding]:
    given_s = _seconds(timeout.value) if timeout.is_known else None
    total = sum(checkpoint.num_bytes for checkpoint in held)
    needed_s = total / _BYTES_PER_S
    if given_s is not None and given_s < needed_s:
        yield Finding(
            span=timeout.span,
            message=f"the wait ends after {given_s:,.0f} s; {total / GB:,.0f} GB take {needed_s:,.0f} s at 1 Gbit/s",
            evidence=(*(checkpoint.in_words for checkpoint in held), "1 Gbit/s is assumed: 125 MB/s"),
            fix=Fix(f"write --timeout={int(needed_s * 1.5 / 3600 + 1)}h"),
        )


def _brought(bundle: Bundle) -> dict[str, dict[str, Checkpoint]]:
    """Known checkpoints by the Job that downloads them, each once."""
    found: dict[str, dict[str, Checkpoint]] = {}
    for download in downloads(bundle):
        workload, checkpoint = download.invocation.workload, checkpoints.of_repo(download.repo.value)
        if workload is not None and workload.name is not None and checkpoint is not None and download.is_whole:
            found.setdefault(workload.name, {})[checkpoint.name] = checkpoint
    return found


def _jobs(command: Kubectl) -> Iterator[str]:
    for at, word in enumerate(command.words):
        kind, slash, name = word.value.partition("/")
        if kind in ("job", "jobs", "job.batch", "jobs.batch"):
            if slash:
                yield name
            elif at + 1 < len(command.words):
                yield command.words[at + 1].value


def _seconds(text: str) -> float | None:
    """A Go duration ("1h30m", "6000s") in seconds; None if it is none, or waits for ever (negative)."""
    parts = list(_DURATION.finditer(text))
    if "".join(part[0] for part in parts) != text or not parts:
        return None
    return sum(float(part[1]) * _UNITS_S[part[2]] for part in parts)
