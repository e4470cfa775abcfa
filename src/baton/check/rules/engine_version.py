"""An engine whose release is not known.

What a flag, a key or a variable does depends on the release. Where the file does not say it (no image, an image of
one's own, a tag such as `latest`), only what holds for every release known is checked, and much that is wrong passes.

Say it with `--engine vllm-0.32.0` or `--engine dynamo-1.6.1`; better, name an image whose tag is a release.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands import versions
from baton.check.commands.launch import Launch, Version
from baton.check.finding import Finding, Fix, Harm
from baton.check.text import Source, Span

HARM = Harm.UNKNOWN
SEE = ()
FIRES = """\
#!/bin/bash
vllm serve m --max-model-len 4096
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-model-len 4096
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every release or image that says too little; one for each file that has it."""
    seen: set[tuple[Source, str]] = set()
    images = {_image(launch) for launch in bundle.engines}
    for launch in bundle.launches:
        if not launch.is_engine and _image(launch) in images:
            continue
        span = launch.version.span or launch.start
        place = span.source, launch.version.why
        if place not in seen and (not launch.version.is_known or _is_other_patch(launch.version)):
            seen.add(place)
            yield _finding(launch, span)


def _image(launch: Launch) -> tuple[Source, str]:
    """What says the release, by its text: the front door mostly has the engine's image."""
    span = launch.version.span
    return launch.start.source, span.written if span is not None else ""


def _is_other_patch(version: Version) -> bool:
    return version.is_known and version.stated is not None and version.stated != version.catalogues[0].version


def _finding(launch: Launch, span: Span) -> Finding:
    version = launch.version
    package = "vllm" if launch.engine == "vllm" else "dynamo"
    newest = f"--engine {package}-{versions.candidates(launch.engine)[-1].version}"
    if version.is_known:
        return Finding(
            span=span,
            message=f"{package} {version.stated} is not in the catalogue: checked as {version.catalogues[0].version}",
            evidence=(version.why,),
            fix=Fix("nothing, or name a release of the catalogue with --engine"),
        )
    first, last = version.catalogues[0].version, version.catalogues[-1].version
    if versions.is_too_old(version):
        return Finding(
            span=span,
            message=f"{package} {version.stated} is older than the catalogue: its flags and variables are not checked",
            evidence=(f"the catalogue begins with {package} {first}",),
            fix=Fix(f"run a later release, or check as one: {newest}"),
        )
    return Finding(
        span=span,
        message=f"{launch.engine}: the release is not known, so only what holds from {first} to {last} is checked",
        evidence=(version.why.removesuffix("; give --engine"),),
        fix=Fix(f"name an image by its release, or give it, such as {newest}"),
    )
