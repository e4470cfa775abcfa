"""Which release of an engine a file means: from an image's tag, a `pip install`, or what the person said.

Only images whose contents are public knowledge say a version: vLLM's own and Dynamo's. Any other image, and any release
the catalogue has not got, leaves the version unknown, and every release known is a candidate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from baton.base.errors import ConfigError
from baton.catalogue.engine import EngineCatalogue, embedding, load_engine, nearest, version_key, versions
from baton.check.commands.launch import Version
from baton.check.text import Span, Text

DYNAMO = ("dynamo.vllm", "dynamo.frontend")
_IMAGE = re.compile(r"(?:[\w.-]+(?::\d+)?/)*(?P<name>[\w.-]+):(?P<tag>[\w][\w.-]*)(?:@sha256:[0-9a-f]+)?")
_VLLM_IMAGES = ("vllm-openai", "vllm-openai-rocm", "vllm-openai-cpu", "vllm-openai-xpu", "vllm-cpu-release-repo")
_DYNAMO_IMAGES = ("vllm-runtime", "dynamo-frontend")
_BUILD = r"cu(?:da)?[\d.]*|rocm[\d.]*|amd64|arm64|aarch64|x86(?:_64)?|ubuntu[\d.]*|efa|cpu|xpu"
_TAG = re.compile(
    rf"v?(?P<version>\d+\.\d+(?:\.\d+)?)(?:[-.+]?(?:rc|post)[-.]?\d+)?(?:[-+](?:{_BUILD}))*$", re.IGNORECASE
)
"""a release, built for some platform; any other word behind it ("-kimi-dev.1") makes it somebody's own build"""
_OLD_TAG = re.compile(r"v?(?P<version>0\.(?:[0-7]|10)\.\d+)[-+.]")  # anybody's build of it is as old as it says
_PIP = re.compile(r"(?P<name>vllm|ai-dynamo)(?:\[[^\]]*\])?==(?P<version>\d+\.\d+(?:\.\d+)?)")


@cache
def of_image(image: str) -> tuple[str, str] | None:
    """Return the package ("vllm" or "dynamo") and release that a public image holds; None if it does not say."""
    found = _IMAGE.fullmatch(image.strip().removeprefix("docker://"))
    tag = (_TAG.match(found["tag"]) or _OLD_TAG.match(found["tag"])) if found else None
    if found is None or tag is None:
        return None
    name = found["name"]
    package = "vllm" if name in _VLLM_IMAGES else "dynamo" if name in _DYNAMO_IMAGES else None
    return (package, tag["version"]) if package else None


def serves_by_itself(image: str) -> bool:
    """Say whether an image runs `vllm serve` when it is given no command."""
    return re.search(r"(?:^|/)vllm-openai(?:-rocm|-cpu|-xpu)?(?::|@|$)", image) is not None


def of_requirement(word: str) -> tuple[str, str] | None:
    """Return the package and release that a word of `pip install` pins; None if it pins neither engine."""
    found = _PIP.search(word)
    return ("vllm" if found["name"] == "vllm" else "dynamo", found["version"]) if found else None


def parse_engine(text: str) -> tuple[str, str]:
    """Return package and release of what a person gives as `--engine vllm-0.22.1` or `dynamo-1.6.1`.

    Raises   ConfigError if it is neither, or not a release of the catalogue
    """
    package, _, stated = text.partition("-")
    package = package.split(".", maxsplit=1)[0]
    engine = {"vllm": "vllm", "dynamo": "dynamo.vllm"}.get(package)
    if engine is None or not re.fullmatch(r"\d+\.\d+(\.\d+)?", stated.removeprefix("v")):
        raise ConfigError(
            f"--engine {text!r}: give vllm-VERSION or dynamo-VERSION, such as vllm-{versions('vllm')[-1]}"
        )
    found = nearest(engine, stated.removeprefix("v"))
    if found is None:
        raise ConfigError(f"--engine {text!r}: the catalogue has {package} {', '.join(versions(engine))}")
    return package, found


@cache
def known(engine: str, package: str, stated: str, span: Span | None, where: str) -> Version:
    """Return the version of an engine when a package and release are stated; `where` says by what ("the image tag")."""
    if package == "vllm" and engine in DYNAMO:
        found = nearest("vllm", stated)
        catalogues = tuple(_embedding(v, found) for v in versions(engine)) if found and engine == "dynamo.vllm" else ()
        return Version(engine, None, catalogues or candidates(engine), f"vLLM {stated} from {where}", span)
    name = "vLLM" if package == "vllm" else package
    release = nearest(engine, stated) if package == engine.split(".", maxsplit=1)[0] else None
    if release is None:
        reason = f"{name} {stated} of {where} is not in the catalogue, which has {_range(engine)}"
        between = _between(engine, stated) if package == engine.split(".", maxsplit=1)[0] else ()
        return Version(engine, stated, between or candidates(engine), reason, span)
    catalogue = _load(engine, release)
    inner = catalogue.takes_engine_flags_of
    with_inner = f" (vLLM {inner.version})" if inner is not None and inner.version else ""
    stands_in = f"; {release} stands for it" if release != stated else ""
    return Version(engine, stated, (catalogue,), f"{name} {stated}{with_inner}, from {where}{stands_in}", span)


def unknown(engine: str, why: str, span: Span | None) -> Version:
    """Return the version of an engine of which nothing is stated."""
    return Version(engine, None, candidates(engine), why, span)


@cache
def candidates(engine: str) -> tuple[EngineCatalogue, ...]:
    """Return every release of an engine, oldest first."""
    return tuple(_load(engine, version) for version in versions(engine))


def pinned(words: Iterable[Text]) -> tuple[str, str, Text] | None:
    """Return what the words of a script pin (an image, a requirement), if they agree on one release of one package."""
    found: dict[tuple[str, str], Text] = {}
    for word in words:
        pin = of_image(word.value) or of_requirement(word.value)
        if pin is not None:
            found.setdefault(pin, word)
    if len(found) != 1:
        return None
    ((package, stated), word) = next(iter(found.items()))
    return package, stated, word


def is_too_old(version: Version) -> bool:
    """Say whether a launch is of a release before all of the catalogue, of which nothing is known."""
    first = version_key(version.catalogues[0].version)
    return version.stated is not None and len(version.catalogues) > 1 and version_key(version.stated)[:2] < first[:2]


@cache
def _between(engine: str, stated: str) -> tuple[EngineCatalogue, ...]:
    """The releases right before and after one that the catalogue lacks; none if it lies outside of them all."""
    known = versions(engine)
    before = [v for v in known if version_key(v) < version_key(stated)]
    after = [v for v in known if version_key(v) > version_key(stated)]
    return (_load(engine, before[-1]), _load(engine, after[0])) if before and after else ()


@cache
def _load(engine: str, version: str) -> EngineCatalogue:
    catalogue = load_engine(engine, version)
    inner = catalogue.takes_engine_flags_of
    release = nearest("vllm", inner.version) if inner is not None and inner.version else None
    return catalogue if release is None else embedding(catalogue, _load("vllm", release))


@cache
def _embedding(version: str, vllm: str) -> EngineCatalogue:
    return embedding(load_engine("dynamo.vllm", version), _load("vllm", vllm))


def _range(engine: str) -> str:
    of = versions(engine)
    return f"{of[0]} to {of[-1]}"
