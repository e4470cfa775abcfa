"""A word on the command line that belongs to no flag.

`vllm serve` takes one word that is no flag, the model; `dynamo.vllm` takes none. One more and the parser stops:
`unrecognized arguments`, exit code 2. Typical are a value given to a switch (`--enable-expert-parallel true`) and a
value with blanks that is not quoted. The old `python -m vllm.entrypoints.openai.api_server` takes one too, but never
reads it: it serves its default model, and clients get 404 for theirs.

A backslash does not continue a line in a folded block (`>`, `>-`): YAML has joined the lines by a blank already, the
backslash makes that blank part of the next word, and the parser is given ` --model`.

Take the word out, quote what belongs together, or name the model with --model.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.finding import Edit, Finding, Fix, Harm
from baton.check.shell.script import Word

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --enable-chunked-prefill true
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --enable-chunked-prefill
"""
_STATES = ("true", "false", "1", "0", "yes", "no", "on", "off")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every positional that nobody takes or reads."""
    for launch in bundle.launches:
        sure = list(_before_unknown(launch))
        joined = next((w for w in sure if w.value.lstrip(" ").startswith("--") and w.value.startswith(" ")), None)
        if joined is not None:
            yield _folded(launch, joined)
            continue
        strays = [w for w in sure if _switch_before(launch, w) is not None and w.value.lower() in _STATES]
        most = 1 if launch.engine == "vllm" else 0
        rest = [word for word in sure if word not in strays]
        # A template may put in options; and after one word too many, the others are the same fault.
        over = [word for word in rest[most:] if word.is_known or "{{" not in word.value][:1]
        for word in sorted((*strays, *over), key=lambda w: w.span.start):
            yield _finding(launch, word)
        if launch.start.written.endswith("api_server") and len(rest) == 1 and launch.lacks("--model"):
            yield _unread(launch, rest[0])


def _before_unknown(launch: Launch) -> Iterator[Word]:
    """The positionals before any word that may turn out to be several, or an option: nothing is sure behind it."""
    for word in launch.words:
        if word.is_splitting:
            return
        if any(word is positional for positional in launch.positionals):
            yield word


def _switch_before(launch: Launch, word: Word) -> Argument | None:
    """The switch right before a word."""
    at = next(at for at, other in enumerate(launch.words) if other is word)
    if at == 0:
        return None
    before = launch.words[at - 1]
    return next((o for o in launch.options if not o.words and o.flag and o.written.span == before.span), None)


def _finding(launch: Launch, word: Word) -> Finding:
    switch = _switch_before(launch, word)
    shown = word.value if word.is_known else word.span.written
    if switch is None or word.value.lower() not in _STATES:
        takes = "one word that is no flag, the model" if launch.engine == "vllm" else "no word that is no flag"
        evidence = f"{launch.engine} takes {takes}; the parser exits: unrecognized arguments: {shown}"
        message = f"{shown!r} belongs to no flag"
        return Finding(span=word.span, message=message, evidence=(evidence,), fix=Fix("remove it, or quote its value"))
    is_off = word.value.lower() in _STATES[1::2]
    negation = f"--no-{switch.name[2:]}"
    can_negate = switch.flag is not None and switch.flag.negation
    said = f"the parser takes it for a word of its own: unrecognized arguments: {shown}"
    if launch.engine == "vllm" and not any(p is not word for p in launch.positionals):
        said = "the parser takes it for the model's name, or exits: unrecognized arguments"
    words = f"remove {shown}"
    edits = _removal(launch, word)
    if is_off:
        words = f"write {negation} and remove {shown}" if can_negate else f"remove {switch.name} {shown}"
        renaming = fixes.rename_option(switch, negation)
        edits = (*renaming, *edits) if can_negate and renaming and edits else ()
    return Finding(
        span=word.span,
        message=f"{switch.name} takes no value, so {shown!r} belongs to no flag",
        evidence=(said,),
        fix=Fix(words, edits),
    )


def _folded(launch: Launch, word: Word) -> Finding:
    return Finding(
        span=word.span,
        message=f"the backslash before {word.value.strip()} makes a blank part of it: {launch.engine} exits",
        evidence=(
            "the block is folded (>): YAML joins its lines by a blank, and a backslash before a blank quotes it",
            f"the parser exits: unrecognized arguments: {word.value}",
        ),
        fix=Fix("begin the block with | in the place of >, or take the backslashes out"),
    )


def _unread(launch: Launch, word: Word) -> Finding:
    return Finding(
        span=word.span,
        message=f"api_server never reads {word.value!r}: it serves its default model",
        evidence=("vllm.entrypoints.openai.api_server takes the model by --model only",),
        fix=Fix(f"write --model {word.value}", fixes.replace_text(word.text, f"--model={word.value}")),
        harm=Harm.NOT_SERVING,
    )


def _removal(launch: Launch, word: Word) -> tuple[Edit, ...]:
    alone = Argument(word, "", None, False, False, (), (), word.span)
    return fixes.remove_option(alone)
