"""An endpoint picker that cuts prompts into other blocks than the engines do.

The picker finds the worker with the longest cached prefix by hashing a prompt block by block. Its block size is the
variable DYN_KV_CACHE_BLOCK_SIZE, theirs is --block-size. With two sizes no hash is ever equal: every prompt looks new,
and requests are spread as if nothing were cached. Unset, the engines' size is vLLM's choice: 16 mostly, for MLA models
what the kernel of the GPU wants (64 on Hopper, 128 or 64 on Blackwell).

Write --block-size on every worker and the same number in DYN_KV_CACHE_BLOCK_SIZE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts.graphs import graphs
from baton.check.finding import Finding, Fix, Harm
from baton.check.shell.script import Word

HARM = Harm.WASTED
SEE = ()
_GRAPH = """\
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeployment
metadata: {name: picked}
spec:
  components:
    - name: epp
      type: epp
      podTemplate:
        spec:
          containers:
            - name: main
              image: nvcr.io/nvidia/ai-dynamo/dynamo-frontend:1.6.1
              env: [{name: DYN_KV_CACHE_BLOCK_SIZE, value: "128"}]
    - name: worker
      type: worker
      podTemplate:
        spec:
          containers:
            - name: main
              image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1
              command: [python3, -m, dynamo.vllm]
              args:
                - --model=/models/qwen
                - --block-size=%s
                - '--kv-events-config={"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:20080"}'
"""
FIRES = _GRAPH % "64"
SILENT = _GRAPH % "128"
_SIZE = re.compile(r"[1-9]\d{0,5}")
_NAME, _FLAG = "DYN_KV_CACHE_BLOCK_SIZE", "--block-size"
_BLACKWELL = ("b200", "gb200", "gb300")
_FORCED = "0.18"  # platforms/cuda.py up to 0.17.1 makes 128 of it for MLA on Blackwell


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every worker whose blocks are not those of its picker."""
    for graph in graphs(bundle):
        words = [
            c.env[_NAME].word
            for w in graph.workloads
            if w.component == "epp"
            for c in w.pod.containers
            if _NAME in c.env
        ]
        if len(words) == 1 and words[0].is_known and _SIZE.fullmatch(words[0].value):
            different = [e for _, e in graph.workers if e is not None and _differs(e, int(words[0].value))]
            if different:
                yield _finding(words[0], different)


def _differs(engine: Launch, size: int) -> bool:
    if engine.given(_FLAG) is not None:
        value = engine.value(_FLAG)
        return isinstance(value, int) and value != size
    is_forced_so = size == 128 and engine.is_between(before=_FORCED) and engine.accelerator in _BLACKWELL
    return engine.lacks(_FLAG) and not (is_forced_so and engine.known_model is not None)


def _finding(word: Word, engines: list[Launch]) -> Finding:
    engine = engines[0]
    value = engine.value(_FLAG) if engine.given(_FLAG) is not None else None
    theirs = f"{engine.title} has --block-size {value}" if value else f"{engine.title} has no {_FLAG}"
    option = engine.given(_FLAG)
    return Finding(
        span=word.span,
        message=f"the picker hashes prompts in blocks of {word.value} and {theirs}: it finds no cached prefix",
        evidence=() if value else ("unset, vLLM takes 16, and for MLA models 64 on Hopper, 128 or 64 on Blackwell",),
        fix=Fix(
            f"write {value} here" if value else f"write {_FLAG} {word.value} on the workers, if their kernel takes it",
            fixes.replace_text(word.text, str(value)) if value and len(engines) == 1 else (),
        ),
        also=tuple((option.span if e is engine and option else e.start, e.title) for e in engines),
    )
