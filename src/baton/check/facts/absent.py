"""What can be said of a name that the release which runs lacks: it is gone, not there yet, or was never there.

Where the release is not known, a name counts as gone if the newest lacks it; that is said, but not claimed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from baton.catalogue import history
from baton.catalogue.engine import EngineCatalogue, version_key
from baton.catalogue.history import Life
from baton.check.bundle import Bundle
from baton.check.commands import versions
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.facts import lives
from baton.check.facts.plugins import has_plugin
from baton.check.finding import Harm

# --help stops everything by itself; -O.key=v went from a config's key to a word that is read and dropped.
_NO_FLAG = re.compile(r"(?:-h|--help)(?:=|$)|-O\.")

Kind = Literal["gone", "new", "never"]


@dataclass(frozen=True, slots=True)
class Absence:
    """life: the stay that ended ("gone") or has not begun ("new"); None if no known release has the name ("never").

    is_sure: False if what runs may have it all the same: an unknown release, somebody's own build, or a plugin's.
    """

    kind: Kind
    life: Life | None
    is_sure: bool

    @property
    def harm(self) -> Harm | None:
        """What the finding's harm is instead of its rule's."""
        return None if self.is_sure else Harm.UNKNOWN


def of(launch: Launch, has: Callable[[EngineCatalogue], bool]) -> Absence | None:
    """Return what is known of a name that a launch uses; None if its release has it, or may well have it."""
    catalogues = launch.version.catalogues
    if has(catalogues[-1]):
        return None
    stays = history.lives(versions.candidates(launch.engine), has)
    is_lacking = not any(has(catalogue) for catalogue in catalogues)
    if not stays:
        is_release = launch.version.is_known or launch.version.span is None
        return Absence("never", None, is_release and not has_plugin(launch)) if is_lacking else None
    if launch.version.is_known:
        life = lives.past(launch, has)
        return Absence("gone", life, True) if life is not None else Absence("new", lives.future(launch, has), True)
    if stays[-1].until is None or _is_older(launch):
        return None
    return Absence("gone", stays[-1], is_lacking)


def flags(bundle: Bundle, kind: Kind) -> Iterator[tuple[Launch, Argument, Absence]]:
    """Yield every option that stands for no flag of its release, for one reason."""
    for launch in bundle.launches:
        for option in launch.options:
            written = option.written.value
            is_taken = option.name and (launch.version.is_known or option.is_abbreviated)
            if is_taken or not option.written.is_known or _NO_FLAG.match(written):
                continue
            absence = of(launch, _takes(launch, written))
            if absence is not None and absence.kind == kind and not _is_beginning(launch, option, kind):
                yield launch, option, absence


def words(launch: Launch, absence: Absence, verb: tuple[str, str, str] = ("took", "takes", "takes")) -> str:
    """Return why a name is believed to be absent; `verb` is what the engine did, does since, and never does with it."""
    known = versions.candidates(launch.engine)
    package = "vLLM" if launch.engine == "vllm" else "dynamo"
    if absence.life is None:
        said = f"no {package} from {known[0].version} to {known[-1].version} {verb[2]} it"
    else:
        said = f"{launch.engine} {verb[absence.kind == 'new']} it {lives.in_words(launch, absence.life)}"
    return f"{said}; {release(launch)}"


def release(launch: Launch) -> str:
    """Return which release runs, and how that is known, as a sentence part."""
    version = launch.version
    why = version.why.removesuffix("; give --engine")
    return f"this is {why}" if version.is_known or why.startswith("vLLM ") else why


def _takes(launch: Launch, name: str) -> Callable[[EngineCatalogue], bool]:
    """Whether a catalogue has a flag; dynamo.vllm hands what it does not know on to vLLM, which reads underscores."""
    names = {name}
    if launch.engine == "dynamo.vllm" and name.startswith("--"):
        first, dot, rest = name.partition(".")
        names.add(first.replace("_", "-") + dot + rest)
    found = [lives.takes(n) for n in names]
    return lambda catalogue: any(takes(catalogue) for takes in found)


def _is_beginning(launch: Launch, option: Argument, kind: Kind) -> bool:
    """Whether it begins flags of a release: then argparse completes it, or finds it ambiguous."""
    known = versions.candidates(launch.engine) if kind == "never" else launch.version.catalogues[-1:]
    return any(catalogue.abbreviated(option.written.value) for catalogue in known)


def _is_older(launch: Launch) -> bool:
    """Whether the file states a release from before the catalogue begins."""
    stated = launch.version.stated
    first = versions.candidates(launch.engine)[0].version
    return stated is not None and version_key(stated) < version_key(first)
