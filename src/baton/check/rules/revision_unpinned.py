"""A model from the Hub without a revision.

Without one, the head of the repository's main branch is taken on the day of the download. Two downloads a week apart
may be two models; a prefill and a decode worker with different weights pass each other's handshake and give wrong
answers with HTTP 200. Of engines only those of Kubernetes are looked at, whose pods start again by themselves.

Give `--revision` with the commit of the checkpoint you have tested.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts.downloads import downloads
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.FRAGILE
SEE = ("https://github.com/ai-dynamo/dynamo/pull/4637", "https://github.com/vllm-project/vllm/issues/55776")
FIRES = """\
#!/bin/bash
hf download Qwen/Qwen3-8B --local-dir /models/qwen3-8b
"""
SILENT = """\
#!/bin/bash
hf download Qwen/Qwen3-8B --revision b968826d9c46dd6066d109eabc6255188de91218 --local-dir /models/qwen3-8b
vllm serve /models/qwen3-8b
"""
_REPO = re.compile(r"(?!(?:models?|weights|checkpoints?|data|output|local)/)[A-Za-z0-9][\w.-]*/[\w.-]+")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every download, and every pod that loads from the Hub, without a revision."""
    for download in downloads(bundle):
        if download.revision is None and download.repo.is_known and _REPO.fullmatch(download.repo.value):
            words = download.invocation.command.words
            if all(word.is_known or not word.is_splitting for word in words):
                yield Finding(
                    span=download.repo.span,
                    message=f"{download.repo.value} is downloaded without a revision: whatever main is on the day",
                    evidence=("hf download takes the head of the main branch",),
                    fix=Fix("add --revision with the commit you have tested"),
                )
    for launch in bundle.engines:
        yield from _of_launch(launch)


def _of_launch(launch: Launch) -> Iterator[Finding]:
    model = launch.model
    if launch.workload is None or model is None or not model.is_known or not _REPO.fullmatch(model.value):
        return
    if launch.variable("HF_HUB_OFFLINE") in ("1", "true", "True") or not launch.lacks("--revision"):
        return
    yield Finding(
        span=model.span,
        message=f"{model.value} is served without a revision: whatever main is when a pod first loads it",
        evidence=("every pod asks the Hub by itself; pods that start on different days may differ",),
        fix=Fix("add --revision with the commit you have tested"),
    )
