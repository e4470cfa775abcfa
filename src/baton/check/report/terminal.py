"""A report as a compiler prints it: each fault with its line, what was understood of the files and what they need in
the cluster, then a count.

The same fault in several places (prefill and decode, mostly) is told once, with all its places. Lines are never
wrapped, so the width of the terminal changes nothing. What a file holds is shown harmless: a character that does not
print becomes U+FFFD.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.finding import Finding
from baton.check.needs import Need
from baton.check.run import Report, harm_of
from baton.check.text import Span

_MAX_LINE = 160
_MAX_NAMES = 4
_TAB = "    "
_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def print_report(console: Console, report: Report, *, quiet: bool = False) -> None:
    """Print a report; quiet leaves out the notes, and what is needed in the cluster."""
    shown = [finding for finding in report.findings if not (quiet and _severity(finding) == "note")]
    alike: dict[tuple[str, ...], list[Finding]] = {}
    for finding in shown:
        fix = finding.fix.words if finding.fix is not None else ""
        alike.setdefault((finding.code, finding.message, fix, *finding.evidence), []).append(finding)
    for first, *rest in alike.values():
        _print(console, Text("\n").join((*_finding(first, rest), Text())))
    for sentence in understood(report.bundle):
        _print(console, Text(_printable(sentence)))
    for line in () if quiet else _needs(report.needs):
        _print(console, Text(_printable(line)))
    _print(console, _summary(report, shown))


def understood(bundle: Bundle) -> tuple[str, ...]:
    """Return in sentences what the files were taken for: a line for every kind and release of engine in them."""
    groups: dict[tuple[str, bool, str], list[Launch]] = {}
    for launch in bundle.launches:
        groups.setdefault((launch.engine, launch.is_engine, launch.version.why), []).append(launch)
    lines = [
        f"{_count(len(group), 'engine' if is_engine else 'front door')}{_names(group)}, {engine}: {why}"
        for (engine, is_engine, why), group in groups.items()
    ]
    if bundle.engines:
        return tuple(lines)
    objects = len(bundle.manifests.objects)
    rest = f"; checked: {_count(objects, 'Kubernetes object')}" if objects else ", nor anything else that is checked"
    return (*lines, f"no engine command line found in {_count(len(bundle.files), 'file')}{rest}")


def _needs(needs: Sequence[Need]) -> Iterator[str]:
    if needs:
        yield "needed in the cluster (docs/cluster.md says how to get it):"
    for need in needs:
        kinds: dict[str, list[str]] = {}
        for each in need.objects:
            kinds.setdefault(each.kind, []).append(each.name or "")
        yield f"  {need.what}: " + "; ".join(f"{kind} {_some(names)}".rstrip() for kind, names in kinds.items())


def _finding(finding: Finding, rest: Sequence[Finding]) -> Iterator[Text]:
    """The lines of one finding; `rest` are the same in other places."""
    severity, span = _severity(finding), finding.span
    margin = " " * len(str(span.line))
    source, offset, width = _excerpt(span)
    bar = ("|", "blue")
    yield Text.assemble(
        (f"{severity}[{finding.code}]", _STYLES[severity]), (f": {_printable(finding.message)}", "bold")
    )
    yield Text.assemble(margin, ("--> ", "blue"), _printable(str(span)))
    for other in rest:
        yield Text.assemble(margin, ("--> ", "blue"), _printable(str(other.span)))
    yield Text.assemble(margin, " ", bar)
    yield Text.assemble((f"{span.line} ", "blue"), bar, f" {source}".rstrip())
    yield Text.assemble(margin, " ", bar, " " * (offset + 1), ("^" * width, _STYLES[severity]))
    for evidence in finding.evidence:
        yield from _note(margin, "because", evidence)
    for place, part in finding.also:
        yield from _note(margin, "also", f"{place}: {part}")
    if finding.fix is not None:
        yield from _note(margin, "fix", finding.fix.words, "green")
    for thread in finding.see:
        yield from _note(margin, "see", thread)


def _note(margin: str, label: str, text: str, style: str = "bold") -> Iterator[Text]:
    first, *rest = text.splitlines() or [""]
    yield Text.assemble(margin, (" = ", "blue"), (f"{label}: ", style), _printable(first))
    for line in rest:
        yield Text(f"{margin}{' ' * (len(label) + 5)}{_printable(line)}")


def _excerpt(span: Span) -> tuple[str, int, int]:
    """Return the first line of a stretch as shown, and where in it, in cells, the stretch begins and how wide it is."""
    line = span.source.line(span.line)
    first = min(span.column - 1, len(line))
    last = min(first + span.end - span.start, len(line))
    start = max(0, min(first - _MAX_LINE // 4, len(line) - _MAX_LINE))
    end = min(len(line), start + _MAX_LINE)
    before = ("…" if start else "") + _printable(line[start:first])
    marked = _printable(line[first : min(last, end)])
    after = _printable(line[max(first, min(last, end)) : end]) + ("…" if end < len(line) else "")
    return before + marked + after, cell_len(before), max(1, cell_len(marked))


def _summary(report: Report, shown: Sequence[Finding]) -> Text:
    counts = Counter(_severity(finding) for finding in shown)
    hidden, ignored = len(report.findings) - len(shown), len(report.ignored)
    asides = [f"{ignored} ignored"] if ignored else []
    asides += [f"{_count(hidden, 'note')} not shown"] if hidden else []
    tail = f" in {_count(len(report.bundle.files), 'file')}" + (f" ({', '.join(asides)})" if asides else "")
    found = [(_count(counts[severity], severity), style) for severity, style in _STYLES.items() if counts[severity]]
    if not found:
        return Text.assemble(("no faults found", "bold green"), tail)
    parts = [part for one in found for part in (", ", one)][1:]
    return Text.assemble(*parts, tail)


def _names(group: Sequence[Launch]) -> str:
    """What a group's members are called, where that says more than the program's name; by what they belong to."""
    owners: dict[str, list[str]] = {}
    for launch in group:
        workload = launch.workload
        if workload is not None and workload.name is not None:
            owner = workload.object.name
            owners.setdefault(owner if owner and owner != workload.name else "", []).append(workload.name)
    phrases = [_some(names) + (f" of {owner}" if owner else "") for owner, names in owners.items()]
    sources = {launch.start.source for launch in group}
    where = f" in {_count(len(sources), 'file')}" if len(sources) > 1 else ""
    return where + (f" ({_some(phrases, '; ')})" if phrases else "")


def _some(names: Sequence[str], mark: str = ", ") -> str:
    unique = list(dict.fromkeys(names))
    more = len(unique) - _MAX_NAMES
    return mark.join(unique[:_MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def _severity(finding: Finding) -> str:
    return harm_of(finding).severity


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else _TAB if c == "\t" else "\ufffd" for c in text)


def _print(console: Console, line: Text) -> None:
    console.print(line, soft_wrap=True, highlight=False)
