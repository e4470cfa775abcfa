"""A command line taken apart as the engine's own parser would, for one release or for all that it may be.

Options are found by the catalogue (dashes or underscores, --no-x, aliases, abbreviations, --config.key). What stands
after an option belongs to it as argparse would have it. Nothing is judged here; that is the rules' work.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from baton.catalogue.engine import EngineCatalogue, Flag, FlagMatch
from baton.check.shell.script import Word
from baton.check.text import Span, Text

_NUMBER = re.compile(r"-\d+(\.\d*)?$|-\.\d+$")


@dataclass(frozen=True, slots=True, eq=False)
class Argument:
    """One option as it was written, with what follows it.

    written: the option's word, without =value. name: the flag's full name ("--max-model-len"); "" if no candidate has
    it. flag: what the newest candidate that has it says of it. negated: --no-X. path: keys after it, for
    --config.key.key. words: its values (for --x=1 the part behind the equals sign). span: all of it, values included.
    """

    written: Word
    name: str
    flag: Flag | None
    negated: bool
    is_abbreviated: bool
    path: tuple[str, ...]
    words: tuple[Word, ...]
    span: Span

    @property
    def value(self) -> Word | None:
        """Its only value; None if it has none, several, or one that cannot be known."""
        return self.words[0] if len(self.words) == 1 and self.words[0].is_known else None


@dataclass(frozen=True, slots=True)
class Arguments:
    """is_complete: False if words that cannot be known may hold further options.

    An unquoted variable where an option takes one value (`--port $PORT`) is taken for that value, as it is meant.
    """

    options: tuple[Argument, ...]
    positionals: tuple[Word, ...]
    is_complete: bool


def parse(words: Sequence[Word], catalogues: Sequence[EngineCatalogue]) -> Arguments:
    """Take the words after a program apart."""
    options: list[Argument] = []
    positionals: list[Word] = []
    meant: set[int] = set()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.is_known and word.value == "--":
            positionals += rest
            break
        if not _is_option(word):
            positionals.append(word)
            continue
        option, given = _split(word)
        match = _match(option.value, catalogues)
        count = _num_values(match, option.value, rest) if given is None else 0
        values = [rest.pop(0) for _ in range(count)] if given is None else [given]
        if match is not None and len(values) == 1 and match.flag.nargs is None:
            meant.add(id(values[0]))
        span = word.span.to(values[-1].span) if values and values[-1].span.source is word.span.source else word.span
        options.append(_argument(option, match, tuple(values), span))
    # Where a run decides how many words there are, any number of options may stand; a word of its own may be one.
    num_models = 1 if catalogues and catalogues[0].engine == "vllm" else 0
    is_open = any(word.is_splitting and id(word) not in meant for word in words)
    is_complete = not is_open and all(p.is_known for p in positionals[num_models:])
    return Arguments(tuple(options), tuple(positionals), is_complete)


def _is_option(word: Word) -> bool:
    text = word.value
    return text.startswith("-") and len(text) > 1 and not _NUMBER.match(text) and not word.is_splitting


def _split(word: Word) -> tuple[Word, Word | None]:
    """`--a=b` into option and value; `--a+=b` of a list key keeps its plus."""
    at = word.value.find("=")
    if at < 0:
        return word, None
    start, end = word.span.start, word.span.end
    text: Text = word.text
    is_here = text.source is word.span.source and start <= text.offsets[0] and text.offsets[-1] <= end
    option, value = text[:at], text[at + 1 :]
    spans = (option.span(), value.span()) if is_here else (word.span, word.span)
    is_known = word.is_known
    return Word(option, spans[0]), Word(value, spans[1], is_known, is_splitting=False)


def _match(option: str, catalogues: Sequence[EngineCatalogue]) -> FlagMatch | None:
    """What the newest candidate that has the option says; an option written in full is taken before an abbreviation."""
    found = None
    for catalogue in reversed(catalogues):
        match = catalogue.flag(option)
        if match is not None and not match.is_abbreviated:
            return match
        found = found or match
    return found


def _num_values(match: FlagMatch | None, option: str, rest: Sequence[Word]) -> int:
    """How many of the words that follow belong to an option; of an unknown one, all up to the next option."""
    until = next((at for at, word in enumerate(rest) if _is_option(word)), len(rest))
    if match is None or match.path:
        return until if match is None else min(until, 1)
    flag = match.flag
    if match.negated or flag.bare or (flag.type == "bool" and flag.negation) or re.fullmatch(r"-O\d", option):
        return 0
    if flag.nargs in ("+", "*"):
        return until
    most = flag.nargs if isinstance(flag.nargs, int) else 1
    return min(until, most)


def _argument(option: Word, match: FlagMatch | None, values: tuple[Word, ...], span: Span) -> Argument:
    if match is None:
        return Argument(option, "", None, False, False, (), values, span)
    return Argument(option, match.name, match.flag, match.negated, match.is_abbreviated, match.path, values, span)
