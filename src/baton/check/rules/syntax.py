"""A file, or a script in it, that cannot be read.

Broken YAML is refused by `kubectl apply` as a whole. A broken script stops where it breaks: the container exits with
code 2 before the engine starts. Everything that could be read around the fault is checked all the same, but what
stands in it is not.

Mend the place; look at the line before it too, where quotes and brackets are opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.check.bundle import Bundle, File
from baton.check.finding import Finding, Fix, Harm
from baton.check.text import Span
from baton.check.yaml import tree
from baton.check.yaml.tree import Fault

HARM = Harm.NOT_STARTING
SEE = ()
_ACTION = re.compile(r"^[ \t-]*\{\{|\{%|^[ \t]*\$\{\w+\}[ \t]*$", re.MULTILINE)
FIRES = """\
apiVersion: v1
kind: Pod
metadata: {name: engine
spec:
  containers: []
"""
SILENT = """\
apiVersion: v1
kind: Pod
metadata: {name: engine}
spec:
  containers: []
"""
_WHAT = {"yaml": "YAML", "shell": "the script", "recipe": "the recipe"}


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every place at which a file could not be read; examples in Markdown may be as they are."""
    scripts = list(_scripts(bundle))
    for file in bundle.files:
        own = set(tree.read(file.source).faults) if file.kind == "yaml" and file.faults else set()
        for fault in file.faults if file.kind in _WHAT else ():
            in_script = [s for s in scripts if s.source is file.source and s.start <= fault.span.start <= s.end]
            # Any other text of a manifest that speaks of an engine was read as a script on suspicion only.
            if fault in own and _ACTION.search(file.source.text):
                continue  # a template, whose actions no reader of YAML understands
            if file.kind != "yaml" or fault in own or in_script:
                yield _finding(file, fault, is_script=fault not in own and file.kind == "yaml")


def _scripts(bundle: Bundle) -> Iterator[Span]:
    """Where the command lines of containers stand."""
    for workload in bundle.manifests.workloads:
        for container in workload.pod.containers:
            yield from (word.span for word in (*(container.command or ()), *(container.args or ())))


def _finding(file: File, fault: Fault, *, is_script: bool) -> Finding:
    what = "the script" if is_script else _WHAT[file.kind]
    message = " ".join(fault.message.split()).rstrip(".")
    text = file.source.text
    start = min(fault.span.start, max(len(text) - 1, 0))
    span = fault.span if fault.span.end > fault.span.start else file.source.span(start, min(start + 1, len(text)))
    evidence = "the recipe is refused" if file.kind == "recipe" else "what stands around it was checked, this was not"
    return Finding(
        span=span,
        message=message if file.kind == "recipe" else f"{what} cannot be read here: {message}",
        evidence=(evidence,),
        fix=Fix("mend it here, or at the line before" if file.kind != "recipe" else "correct this field"),
    )
