"""A setting that the text names and the manifests beside it have not got.

People read the README and believe it. A "key setting" that no launch has is not on: the numbers printed below it were
measured with something else, and whoever tunes by the text tunes in vain.

Put the setting into the manifest, or take it out of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from baton.check.bundle import Bundle, File
from baton.check.commands.launch import Launch
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.FRAGILE
SEE = ("https://github.com/ai-dynamo/dynamo/pull/5953", "https://github.com/ai-dynamo/dynamo/pull/6274")
_TEXT = """\
# Notes

Settings that matter: `--max-num-seqs %s`.

```bash
vllm serve /models/qwen --max-num-seqs 64
```
"""
FIRES = _TEXT % "512"
SILENT = _TEXT % "64"
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_FLAG = re.compile(r"(--[a-zA-Z][\w-]*)(?:[ =]([^\s`]+))?")
_VARIABLE = re.compile(r"((?:VLLM|NCCL|GLOO|NVSHMEM|UCX|DYN|TORCH_NCCL)_[A-Z0-9_]+)(?:=(\S*))?")
_NOT_CLAIMED = re.compile(
    r"\b(?:not|no|never|without|instead|remov\w*|avoid|unlike|deprecated|optional\w*|was|were|if|try|could|alternative\w*"
    r"|replac\w*|older|newer|add|pass|default\w*)\b|n't\b",
    re.IGNORECASE,
)
_THE_MANIFEST = re.compile(r"\bmanifests?\b|\.ya?ml\b", re.IGNORECASE)


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every setting in inline code that the launches of its folder contradict."""
    for file in bundle.files:
        if file.kind == "markdown":
            launches = _beside(bundle, file)
            if launches and all(launch.is_complete and launch.is_env_complete for launch in launches):
                yield from _findings(file, launches)


def _findings(file: File, launches: list[Launch]) -> Iterator[Finding]:
    titles = ", ".join(dict.fromkeys(launch.title for launch in launches))
    whole = file.source.whole()
    for found in _CODE.finditer(whole.value):
        start = whole.value.rfind("\n", 0, found.start()) + 1
        end = whole.value.find("\n", found.end())
        line = whole.value[start : end if end >= 0 else len(whole.value)]
        prose = _CODE.sub("", line)
        said = _contradiction(found[1].strip(), prose, launches)
        if said is not None and said.startswith("no launch") and launches[0].start.source is file.source:
            continue  # advice, as like as not
        if said is not None:
            yield Finding(
                span=whole.span(found.start(1), found.end(1)),
                message=f"the text says {found[1].strip()}, but {said}",
                evidence=(f"looked for in every launch beside it: {titles}",),
                fix=Fix("put it into the manifest, or take it out of the text"),
            )


def _contradiction(code: str, prose: str, launches: list[Launch]) -> str | None:
    """How the launches contradict a piece of inline code; None if they do not, or it claims nothing."""
    flag, variable = _FLAG.fullmatch(code), _VARIABLE.fullmatch(code)
    if variable is not None and variable[2] is None:
        is_about = _THE_MANIFEST.search(prose) is not None
        return None if not is_about or any(variable[1] in launch.env for launch in launches) else "no launch sets it"
    if _NOT_CLAIMED.search(prose):
        return None
    if variable is not None:
        return _of_variable(variable[1], variable[2], launches)
    return _of_flag(flag[1], flag[2], launches) if flag is not None and flag[2] is not None else None


def _of_variable(name: str, value: str, launches: list[Launch]) -> str | None:
    words = [launch.env[name] for launch in launches if name in launch.env]
    if not words:
        return "no launch sets it"
    if any(not word.is_known or word.value == value.strip("\"'") for word in words):
        return None
    return f"the launches set it to {' and '.join(dict.fromkeys(word.value for word in words))}"


def _of_flag(written: str, value: str, launches: list[Launch]) -> str | None:
    name = written.replace("_", "-")
    if not any(launch.flag(name) is not None for launch in launches):
        return None
    given = [option for launch in launches if (option := launch.given(name)) is not None]
    if not given:
        return None if any(launch.all_given(name) for launch in launches) else "no launch gives it"
    values = [" ".join(word.value for word in option.words) for option in given]
    if value.strip("\"'") in values or any(not word.is_known for option in given for word in option.words):
        return None
    return f"the launches give {' and '.join(dict.fromkeys(values))}"


def _beside(bundle: Bundle, file: File) -> list[Launch]:
    """The launches of the files in the text's folder and below; without any, the only one that the text shows."""
    folder, prose = Path(file.source.name).parent, {f.source for f in bundle.files if f.kind == "markdown"}
    beside = [launch for launch in bundle.launches if folder in Path(launch.start.source.name).parents]
    started = [launch for launch in beside if launch.start.source not in prose]
    shown = [launch for launch in beside if launch.start.source is file.source]
    return started or (shown if len(shown) == 1 else [])
