"""Several served model names for dynamo.vllm.

vLLM's own server takes as many names as --served-model-name is given, and answers to each. dynamo.vllm registers a
model under one: with two it exits ("We do not support multiple model names."), and the pod restarts.

Give one name, and have every client ask for that.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: worker}
spec:
  containers:
    - name: worker
      image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1
      command: [python3, -m, dynamo.vllm]
      args:
        - --model=/models/qwen
        - --served-model-name
        - qwen%s
"""
FIRES = _POD % "\n        - qwen3"
SILENT = _POD % ""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every dynamo worker with more than one served name."""
    for launch in bundle.engines:
        option = launch.given("--served-model-name")
        if launch.engine != "dynamo.vllm" or option is None or len(option.words) < 2:
            continue
        names = [word.value for word in option.words]
        if not all(word.is_known for word in option.words):
            continue
        yield Finding(
            span=option.words[1].span,
            message=f"dynamo.vllm takes one served model name, not {len(names)} ({', '.join(names)}): it exits",
            evidence=("vllm serve takes several; dynamo registers a model under one",),
            fix=Fix(f"keep one of them, such as {names[0]}"),
        )
