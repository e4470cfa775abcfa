"""JSON that is none.

A config flag's value must be JSON; else the engine's parser stops: `json_invalid`, or `cannot be converted`, exit code
2. Shells eat quotes: `--kv-transfer-config {"kv_role":"kv_both"}` without single quotes around it arrives as
`{kv_role:kv_both}`. Single quotes inside, a trailing comma, and Python's True and None are no JSON either.

Put the whole in single quotes and its names in double ones, or write `--kv-transfer-config.kv_role kv_both`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.finding import Edit, Finding, Fix, Harm
from baton.check.shell.script import Word

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --eplb-config {"window_size":1000,"step_interval":3000}
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --eplb-config '{"window_size":1000,"step_interval":3000}'
"""

_FILLED_IN = re.compile(r"\$\([A-Za-z_]\w*\)|\$\{")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every value of a JSON flag that is not JSON, or no object where the flag is a config."""
    for launch in bundle.launches:
        for option in launch.options:
            if option.flag is None or option.path or option.value is None or option.flag.type not in ("json", "config"):
                continue
            if _is_template(launch, option.value):
                continue
            said = [_refusal(launch, option, at) for at in range(len(launch.version.catalogues))]
            found = [s for s in said if s is not None]
            if found and all(found):
                yield _finding(option, option.value, found[-1])


def _is_template(launch: Launch, value: Word) -> bool:
    """Whether something fills the value in first: it stands in the values of a chart or the like, not in a script."""
    is_script = launch.workload is not None or launch.start.source.text.startswith("#!")
    return not is_script and _FILLED_IN.search(value.value) is not None


def _refusal(launch: Launch, option: Argument, at: int) -> str | None:
    """Why a release refuses the value; "" if it takes it, None if it has no such flag."""
    flag = launch.version.catalogues[at].flags.get(option.name)
    text = option.words[0].value
    if flag is None:
        return None
    if flag.type not in ("json", "config") or (flag.optional and text in ("None", "")):
        return ""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    # `-O 3` of 0.11 is a level of compilation; nobody else takes anything but an object.
    is_level = option.written.value.startswith("-O")
    return f"{text} is no JSON object" if flag.type == "config" and not (isinstance(data, dict) or is_level) else ""


def _finding(option: Argument, word: Word, said: str) -> Finding:
    shown = " ".join(word.value.split())
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    words = "write a JSON object, its names in double quotes, the whole in single quotes"
    edits: tuple[Edit, ...] = ()
    meant = _meant(word)
    evidence = [said]
    if meant is not None:
        words = f"write '{meant}'"
        evidence += ["the shell took the quotes away"] if meant == word.span.written else []
        edits = _edits(word, meant)
    return Finding(
        span=word.span,
        message=f"{option.name} takes JSON, and {shown!r} is none" if "not JSON" in said else f"{option.name}: {said}",
        evidence=tuple(evidence),
        fix=Fix(words, edits),
    )


def _meant(word: Word) -> str | None:
    """The JSON that was meant: before the shell took its quotes, or as Python would write it."""
    try:
        if isinstance(json.loads(word.span.written), dict):
            return word.span.written
    except (ValueError, RecursionError):
        pass
    try:
        return json.dumps(ast.literal_eval(word.value))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _edits(word: Word, meant: str) -> tuple[Edit, ...]:
    """Single quotes around it, where nothing else in the file may be inside of single quotes."""
    is_bare = meant == word.span.written and "'" not in word.span.source.text
    return (Edit(word.span, f"'{meant}'"),) if is_bare else ()
