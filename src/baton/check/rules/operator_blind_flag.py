"""A parallel size that the Dynamo operator does not see.

For a multinode worker the operator works out from --data-parallel-size, --tensor-parallel-size and
--pipeline-parallel-size what each node must be told: start rank, local size, leader address, --nnodes. It looks for
exactly these words, each with its number as the next word. It does not see --data-parallel-size=16,
--data_parallel_size 16 or -dp 16, takes the size for 1 and adds nothing: each node starts the whole deployment by
itself on its own GPUs, and exits because they are too few.

Write the flag with dashes and its number as a word of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.arguments import Argument
from baton.check.edits import fixes
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
_GRAPH = """\
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeployment
metadata: {name: wide}
spec:
  components:
    - name: worker
      type: worker
      multinode: {nodeCount: 2}
      sharedMemorySize: 64Gi
      podTemplate:
        spec:
          containers:
            - name: main
              image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1
              command: [python3, -m, dynamo.vllm]
              args:
                - --model=/models/qwen
                - %s
                - --enable-expert-parallel
              resources: {limits: {nvidia.com/gpu: 8}}
"""
FIRES = _GRAPH % "--data-parallel-size=16"
SILENT = _GRAPH % '--data-parallel-size\n                - "16"'
_SIZE = re.compile(r"[2-9]|[1-9]\d{1,5}")
_FLAGS = ("--data-parallel-size", "--tensor-parallel-size", "--pipeline-parallel-size")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every parallel size of a multinode worker that is not written as the operator reads it."""
    for launch in bundle.engines:
        workload = launch.workload
        if workload is not None and workload.is_dynamo and workload.is_nodes_known and workload.nodes > 1:
            for option in launch.options:
                name, size = _name(option), option.value.value if option.value is not None else ""
                is_seen = option.written.value == name and not _is_joined(option)
                if name in _FLAGS and not option.path and not is_seen and _SIZE.fullmatch(size):
                    yield _finding(option, name, size, workload.nodes)


def _name(option: Argument) -> str:
    return option.name or option.written.value.replace("_", "-")


def _is_joined(option: Argument) -> bool:
    source = option.span.source.text
    return source[option.written.span.end : option.written.span.end + 1] == "="


def _finding(option: Argument, name: str, size: str, nodes: int) -> Finding:
    written = f"{option.written.value}={size}" if _is_joined(option) else option.written.value
    edits = fixes.split_option(option, name) if _is_joined(option) else fixes.rename_option(option, name)
    return Finding(
        span=option.span,
        message=f"the Dynamo operator does not see {written}: it tells none of the {nodes} nodes its part, "
        f"each starts all {size} ranks by itself, and exits",
        evidence=(f"it looks for the word {name} and takes the word after it",),
        fix=Fix(f"write {name} {size}, as two words", edits),
    )
