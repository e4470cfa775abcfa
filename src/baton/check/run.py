"""One run of all rules over a bundle, what the files themselves ask to be left out set aside."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from pathlib import Path

from baton.check import ignores
from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm
from baton.check.ignores import Ignore
from baton.check.needs import Need, needs
from baton.check.rule import Rule, all_rules

INTERNAL_ERROR = "internal-error"


@dataclass(frozen=True, slots=True)
class Ignored:
    """A finding that a comment `# baton: ignore[CODE] reason` set aside."""

    finding: Finding
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """findings: worst first, then by place. ignored: those set aside, with the reasons given. needs: of the cluster."""

    bundle: Bundle
    findings: tuple[Finding, ...]
    ignored: tuple[Ignored, ...]
    needs: tuple[Need, ...] = ()


def check(bundle: Bundle) -> Report:
    """Run every rule."""
    found: list[Finding] = []
    broken: set[str] = set()
    for rule in all_rules() if bundle.files else ():
        try:
            for finding in rule.check(bundle):
                found.append(_completed(finding, rule))  # noqa: PERF401 - what a rule finds before it breaks is kept
        except Exception as error:  # noqa: BLE001 - a bug in one rule must not cost the person all the others
            found.append(_internal_error(rule, error, bundle))
            broken.add(rule.code)
    return replace(_set_aside(bundle, _unique(found), broken), needs=needs(bundle))


def harm_of(finding: Finding) -> Harm:
    """Return the harm of a finding of a report."""
    assert finding.harm is not None, "the runner fills it in"
    return finding.harm


def _set_aside(bundle: Bundle, found: list[Finding], broken: set[str]) -> Report:
    """Split what was found by the files' comments, and add what is wrong with those."""
    comments = {file.source: ignores.read(file.source) for file in bundle.files}
    used: dict[Ignore, set[str]] = {}
    kept: list[Finding] = []
    ignored: list[Ignored] = []
    for finding in found:
        of_file = comments.get(finding.span.source)
        ignore = of_file.of(finding) if of_file is not None else None
        if ignore is None:
            kept.append(finding)
        else:
            ignored.append(Ignored(finding, ignore.reason))
            used.setdefault(ignore, set()).add(finding.code)
    codes = {rule.code for rule in all_rules()} | {INTERNAL_ERROR}
    for of_file in comments.values():
        for ignore in of_file:
            kept.extend(ignores.faults(ignore, used.get(ignore, set()) | broken, codes))
    order = {file.source: at for at, file in enumerate(bundle.files)}

    def rank(finding: Finding) -> tuple[int, int, int, str, str]:
        span = finding.span
        return harm_of(finding), order.get(span.source, len(order)), span.start, finding.code, finding.message

    return Report(bundle, tuple(sorted(kept, key=rank)), tuple(sorted(ignored, key=lambda i: rank(i.finding))))


def _completed(finding: Finding, rule: Rule) -> Finding:
    """Fill in what a finding has from its rule."""
    harm = rule.harm if finding.harm is None else finding.harm
    return replace(finding, code=finding.code or rule.code, harm=harm, see=finding.see or rule.see)


def _unique(found: list[Finding]) -> list[Finding]:
    return list({(f.code, f.span, f.message): f for f in found}.values())


def _internal_error(rule: Rule, error: Exception, bundle: Bundle) -> Finding:
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())
    return Finding(
        span=bundle.files[0].source.span(0, 0),
        message=f"the rule {rule.code} broke on these files: {type(error).__name__}{f': {said}' if said else ''}",
        evidence=(f"raised in {Path(last.filename).name}:{last.lineno}; every other rule has run",),
        fix=Fix(f"this is a fault of baton's: please report it with the code {rule.code} and the files"),
        harm=Harm.UNKNOWN,
        code=INTERNAL_ERROR,
    )
