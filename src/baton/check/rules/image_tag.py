"""An engine's image without a tag, or with one that moves.

`latest` is whatever was pushed last when a node pulled it. A pod that restarts on another node may run another release
than its neighbours; flags and variables that were right are refused, and a prefill and a decode worker of two releases
may not take each other's KV.

Name a release (`vllm/vllm-openai:v0.32.0`), or the digest of what was tested (`...@sha256:...`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands import versions
from baton.check.finding import Finding, Fix, Harm
from baton.check.text import Text

HARM = Harm.FRAGILE
SEE = ()
FIRES = """\
#!/bin/bash
docker run --gpus all --ipc=host vllm/vllm-openai:latest --model /models/qwen
"""
SILENT = """\
#!/bin/bash
docker run --gpus all --ipc=host vllm/vllm-openai:v0.32.0 --model /models/qwen
"""
_MOVING = re.compile(r"(?:latest|nightly|main|master|dev|edge|stable|head)(?:[-._][a-z0-9]*)?", re.IGNORECASE)
_OPEN = re.compile(r"[@$<{]")
_RUNNERS = ("docker", "podman", "nerdctl")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every image of an engine or front door whose tag says no release."""
    for image in _images(bundle):
        name = image.value.removeprefix("docker://")
        tag = name.rsplit("/", maxsplit=1)[-1].partition(":")[2]
        if not name or _OPEN.search(name) or (tag and not _MOVING.fullmatch(tag)):
            continue
        what = f"image {name!r} has no tag, which means latest" if not tag else f"the tag of image {name!r} moves"
        yield Finding(
            span=image.span(),
            message=f"{what}: which release runs depends on the day a node pulls it",
            evidence=("the same tag on two nodes may be two releases; P and D that differ may not hand KV over",),
            fix=Fix("write the tag of a release, or a digest (@sha256:...)"),
        )


def _images(bundle: Bundle) -> Iterator[Text]:
    for launch in bundle.launches:
        image = launch.container.image if launch.container is not None else None
        if image is not None and image.is_known:
            yield image.text
    for invocation in bundle.invocations:
        words = invocation.command.words
        is_run = any(word.value == "run" for word in words[1:3])
        if is_run and words[0].value.rsplit("/", maxsplit=1)[-1] in _RUNNERS:
            yield from (w.text for w in words[1:] if w.is_known and versions.serves_by_itself(w.value))
