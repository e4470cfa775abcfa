"""A file moved to another release of its engine: every edit with the reason that made it necessary.

Works by checking: the file is read as if the new release ran it, a fix of what that breaks is made, and again, until
no fix is left that makes it better. So comments, order and layout stay, and what no edit can decide is handed back as
findings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from baton.base.errors import ConfigError
from baton.catalogue.engine import load_engine, versions
from baton.check import bundle, run
from baton.check.commands import versions as releases
from baton.check.commands.launch import Launch
from baton.check.edits import insertions
from baton.check.finding import Edit, Finding, Fix, Harm
from baton.check.text import Source, Span
from baton.check.yaml import tree

_OF_RELEASES = frozenset(
    {
        "removed-flag", "deprecated-flag", "flag-too-new", "bad-value", "bad-json-value", "unknown-json-key",
        "removed-env", "deprecated-env", "env-too-new", "bad-env-value", "lost-config", "connector-flag", "role-flag",
        "kv-connector",
    }
)  # fmt: skip
"""rules whose faults come of moving between releases; they are looked after wherever they are found"""
_ADDED = re.compile(r"add (?P<name>--[\w-]+) (?:'(?P<json>\{.*\})'|(?P<value>[\w.-]+)$)")
_BUILD = re.compile(r"(?:\.?(?:rc|post|dev)\d*)?(?:\+[\w.]+)?")
_DIGEST = re.compile(r"[\w.-]*(?P<digest>@sha256:[0-9a-fA-F]+)")


@dataclass(frozen=True, slots=True)
class Change:
    """One edit: on which line of the file as it was, what was done, and why."""

    line: int
    done: str
    reason: str
    see: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Migration:
    """text: the file as it should be. changes: by line. left: what the move leaves to a person. num_others: findings
    that were there before and have nothing to do with the release.
    """

    text: str
    changes: tuple[Change, ...]
    left: tuple[Finding, ...]
    num_others: int


@dataclass(slots=True)
class _Draft:
    """The text as far as it is done; for each of its lines, which line of the file as it was it stands for."""

    text: str
    lines: list[int] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lines = list(range(1, self.text.count("\n") + 2))

    def make(self, edits: Iterable[Edit], line: int, done: str, reason: str, see: tuple[str, ...] = ()) -> None:
        self.changes.append(Change(self.lines[line - 1], done, reason, see))
        for edit in _in_order(edits):
            start, end = edit.span.start, edit.span.end
            first, last = self.text.count("\n", 0, start), self.text.count("\n", 0, end)
            is_whole = not edit.text and (start == 0 or self.text[start - 1] == "\n")
            kept = self.lines[last] if is_whole else self.lines[first]
            self.lines[first : last + 1] = [self.lines[first]] * edit.text.count("\n") + [kept]
            self.text = self.text[:start] + edit.text + self.text[end:]


def migrate(source: Source, *, to: str) -> Migration:
    """Move a file to the release `to` ("vllm-0.33", "dynamo-1.6.1").

    Raises   ConfigError for a release that is not known, a file that does not read, or one that starts no such engine
    """
    package, version = _release(to)
    before = bundle.of_sources([source])
    _refuse(before, package, version)
    old = {(f.code, f.span.written) for f in run.check(before).findings}
    draft = _Draft(source.text)
    to = f"{package}-{version}"
    for edits, line, done in list(_release_edits(before, package, version)):
        draft.make(edits, line, done, f"the move to {package} {version}")
    while (finding := _next(source.name, draft.text, to, old)) is not None and finding.fix is not None:
        done = finding.fix.words + _lost_comment(finding.fix.edits)
        draft.make(finding.fix.edits, finding.span.line, done, _reason(finding), finding.see)
    found = [f for f in _faults(source.name, draft.text, to) if f.code != run.INTERNAL_ERROR]
    left = [f for f in found if _is_of_move(f, old)]
    left += _doubts(Source(source.name, draft.text), package, version)
    changes = sorted(draft.changes, key=lambda change: change.line)
    by_place = sorted(left, key=lambda f: f.span.start)
    return Migration(draft.text, tuple(changes), tuple(by_place), len(found) - sum(_is_of_move(f, old) for f in found))


def _faults(name: str, text: str, to: str) -> tuple[Finding, ...]:
    return _faults_of(bundle.of_sources([Source(name, text)], engine=to))


def _faults_of(read: bundle.Bundle) -> tuple[Finding, ...]:
    found = run.check(read).findings
    return tuple(f for f in found if run.harm_of(f) <= Harm.FRAGILE)


def _next(name: str, text: str, to: str, old: set[tuple[str, str]]) -> Finding | None:
    """The first finding that the new release brings and whose fix makes the file better; so there is an end to it."""
    read = bundle.of_sources([Source(name, text)], engine=to)
    findings = _faults_of(read)
    for found in sorted(findings, key=lambda f: f.span.start):
        finding = _with_edits(found, read)
        fix = finding.fix
        if fix is None or not fix.edits or fix.is_guess or not _is_of_move(finding, old):
            continue
        fixed = _edited(text, fix.edits)
        if fixed is not None and _is_better(read, findings, bundle.of_sources([Source(name, fixed)], engine=to)):
            return finding
    return None


def _with_edits(finding: Finding, read: bundle.Bundle) -> Finding:
    """A finding whose fix adds a flag, with the edit that does so."""
    added = _ADDED.match(finding.fix.words) if finding.fix is not None and not finding.fix.edits else None
    at = finding.span.start
    launch = next(
        (la for la in read.engines if at in {la.start.start, *(o.written.span.start for o in la.options)}), None
    )
    if finding.fix is None or added is None or launch is None:
        return finding
    value = added["json"] or added["value"]
    edits = insertions.option(launch, added["name"], value)
    if finding.fix.words.endswith("its like to the other side"):
        for other in _partners(launch, read):
            if other.lacks(added["name"]):
                edits += insertions.option(other, added["name"], _of_other_side(value))
    return replace(finding, fix=replace(finding.fix, edits=edits))


def _partners(launch: Launch, read: bundle.Bundle) -> Iterator[Launch]:
    for pair in read.pairs:
        if launch in (pair.prefill, pair.decode):
            yield pair.decode if launch is pair.prefill else pair.prefill


def _of_other_side(value: str) -> str:
    roles = {"kv_producer": "kv_consumer", "kv_consumer": "kv_producer"}
    return re.sub("|".join(roles), lambda found: roles[found[0]], value)


def _is_better(was: bundle.Bundle, findings: Sequence[Finding], now: bundle.Bundle) -> bool:
    """Whether an edited file still is what it was, with fewer errors, or as many and fewer faults of the release."""
    is_read = not any(file.faults for file in now.files) and len(now.launches) == len(was.launches)
    return is_read and _weight(_faults_of(now)) < _weight(findings)


def _weight(findings: Sequence[Finding]) -> tuple[int, int, int]:
    errors = sum(run.harm_of(f) <= Harm.NOT_STARTING for f in findings)
    return errors, sum(f.code in _OF_RELEASES for f in findings), len(findings)


def _is_of_move(finding: Finding, old: set[tuple[str, str]]) -> bool:
    return finding.code in _OF_RELEASES or (finding.code, finding.span.written) not in old


def _reason(finding: Finding) -> str:
    """What is wrong, and since when."""
    since = finding.evidence[0].split("; this is ")[0] if finding.evidence else ""
    return f"{finding.message} ({since})" if since else finding.message


def _lost_comment(edits: Iterable[Edit]) -> str:
    """The comment that stands behind what is taken out, and goes with it."""
    found = (re.search(r"\S[ \t]+(#[^\n]*?)\r?\n$", edit.span.written) for edit in edits if not edit.text)
    comment = next((match[1] for match in found if match), "")
    return f", and its comment with it: {comment}" if comment else ""


def _in_order(edits: Iterable[Edit]) -> list[Edit]:
    """The edits from the last to the first, so that each finds its place where it was."""
    return sorted(set(edits), key=lambda e: (-e.span.start, -e.span.end))


def _edited(text: str, edits: Iterable[Edit]) -> str | None:
    """The text with the edits made; None if they are in each other's way."""
    until = len(text)
    for edit in _in_order(edits):
        if edit.span.end > until:
            return None
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
        until = edit.span.start
    return text


def _release(to: str) -> tuple[str, str]:
    try:
        return releases.parse_engine(to)
    except ConfigError as error:
        raise ConfigError(str(error).replace("--engine", "--to")) from error


def _refuse(found: bundle.Bundle, package: str, version: str) -> None:
    """Stop where there is nothing to move, or the wrong thing."""
    faults = [fault for file in found.files for fault in file.faults]
    if faults:
        raise ConfigError(f"{faults[0].span}: {faults[0].message}; mend it first")
    name = found.files[0].source.name
    if not found.launches:
        raise ConfigError(f"{name}: starts no engine that baton knows (vllm serve, dynamo.vllm); nothing to migrate")
    other = next((launch for launch in found.launches if not launch.engine.startswith(package)), None)
    if other is None:
        return
    if package == "vllm":
        holds = {v: load_engine("dynamo.vllm", v).takes_engine_flags_of for v in versions("dynamo.vllm")}
        pins = ", ".join(f"{d} has {inner.version}" for d, inner in holds.items() if inner is not None)
        raise ConfigError(
            f"{other.start}: {other.engine} carries its own vLLM ({pins}), so it cannot be moved to vLLM {version}; "
            f"give --to dynamo-VERSION"
        )
    raise ConfigError(f"{other.start}: starts vLLM itself, not dynamo; give --to vllm-VERSION")


def _release_edits(found: bundle.Bundle, package: str, version: str) -> Iterator[tuple[list[Edit], int, str]]:
    """The places that name the release: image tags, `pip install`, a recipe's engine.version."""
    seen: set[int] = set()
    for span in _stated(found):
        bare = span.written.strip("\"'")
        stated = releases.of_image(bare) or releases.of_requirement(bare)
        if found.files[0].kind == "recipe":
            stated = (package, bare)
        if stated is None or stated[0] != package or stated[1] == version or span.start in seen:
            continue
        seen.add(span.start)
        place = re.search(rf"(?:^['\"]?|[:=]v?)({re.escape(stated[1])})", span.written)
        if place is None:
            continue
        build, after = _BUILD.match(span.written, place.end()), place.end()
        after = build.end() if build else after
        digest = _DIGEST.match(span.written, after)
        edits = [Edit(span.source.span(span.start + place.start(1), span.start + after), version)]
        done = f"{span.written[place.start(1) : after]} is now {version}"
        if digest:
            at = span.start + digest.start("digest")
            edits.append(Edit(span.source.span(at, span.start + digest.end("digest")), ""))
            done += f"; {digest['digest'][:15]}... is gone, for it names the old image"
        yield edits, span.line, done


def _stated(found: bundle.Bundle) -> Iterator[Span]:
    """Every place that may state a release."""
    is_recipe = found.files[0].kind == "recipe"
    for launch in found.launches:
        places = (launch.version.span,) if is_recipe else (launch.version.span, launch.start)
        yield from (span for span in places if span is not None)
    for workload in found.manifests.workloads:
        for container in workload.pod.containers:
            if isinstance(container.image, tree.Scalar) and container.image.is_known:
                yield container.image.span


def _doubts(source: Source, package: str, version: str) -> Iterator[Finding]:
    """What is left to see to of the release itself: a place that states another, or none, or a variant of an image."""
    seen: set[int] = set()
    for launch in bundle.of_sources([source]).launches:
        span = launch.version.span or launch.start
        if span.start in seen:
            continue
        seen.add(span.start)
        variant = re.search(rf"v?{re.escape(version)}(-[\w.-]+)", span.written)
        if launch.version.stated is None:
            message, harm = f"nothing says that {package} {version} runs here", Harm.FRAGILE
            words = f"see to it that {package} {version} runs: name it in the image tag or in pip install"
        elif launch.version.stated != version:
            message, harm = f"{package} {launch.version.stated} still runs here", Harm.NOT_STARTING
            words = f"name {package} {version} where this release is named"
        elif variant:
            message, harm = f"the variant {variant[1]} of {package} {version} may not be published", Harm.FRAGILE
            words = f"see that the registry has {variant[0]}"
        else:
            continue
        yield Finding(span=span, message=message, fix=Fix(words), harm=harm, code="release")
