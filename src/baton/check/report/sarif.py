"""A report as SARIF 2.1.0, which code hosts and editors show beside the lines."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from baton.check.finding import Edit, Finding
from baton.check.report import pages as explain
from baton.check.rule import Rule
from baton.check.run import Report, harm_of
from baton.check.text import Span

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def to_sarif(report: Report) -> str:
    """Return a report as one SARIF log; what was ignored is in it as suppressed."""
    found = [(finding, None) for finding in report.findings]
    ignored = [(one.finding, one.reason) for one in report.ignored]
    used = {finding.code for finding, _ in (*found, *ignored)}
    rules = [rule for rule in explain.codes() if rule.code in used]
    order = [rule.code for rule in rules]
    driver = {"name": "baton", "version": version("baton"), "rules": [_rule(rule) for rule in rules]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, order, reason) for finding, reason in (*found, *ignored)],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    page = explain.page(rule.code)
    body = explain.body(rule)
    return {
        "id": rule.code,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": " ".join(body.split("\n\n", maxsplit=1)[0].split()) or rule.title},
        "help": {"text": page, "markdown": page},
        **({"helpUri": rule.see[0]} if rule.see else {}),
        "defaultConfiguration": {"level": rule.harm.severity},
        "properties": {"harm": rule.harm.name.lower()},
    }


def _result(finding: Finding, order: Sequence[str], reason: str | None) -> dict[str, Any]:
    harm, fix = harm_of(finding), finding.fix
    words = [finding.message, *finding.evidence]
    words += [f"fix: {fix.words}"] if fix is not None else []
    words += [f"see: {thread}" for thread in finding.see]
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "level": harm.severity,
        "message": {"text": "\n".join(words)},
        "locations": [{"physicalLocation": _location(finding.span)}],
        "suppressions": [] if reason is None else [{"kind": "inSource", "justification": reason}],
        "properties": {"harm": harm.name.lower()},
    }
    if finding.code in order:
        result["ruleIndex"] = order.index(finding.code)
    if finding.also:
        result["relatedLocations"] = [
            {"id": number, "physicalLocation": _location(span), "message": {"text": part}}
            for number, (span, part) in enumerate(finding.also, start=1)
        ]
    if fix is not None and fix.edits:
        result["fixes"] = [{"description": {"text": fix.words}, "artifactChanges": _changes(fix.edits)}]
    return result


def _changes(edits: Sequence[Edit]) -> list[dict[str, Any]]:
    by_file: dict[str, list[dict[str, Any]]] = {}
    for edit in edits:
        replacement = {"deletedRegion": _region(edit.span), "insertedContent": {"text": edit.text}}
        by_file.setdefault(edit.span.source.name, []).append(replacement)
    return [{"artifactLocation": {"uri": _uri(name)}, "replacements": of} for name, of in by_file.items()]


def _location(span: Span) -> dict[str, Any]:
    return {"artifactLocation": {"uri": _uri(span.source.name)}, "region": _region(span)}


def _region(span: Span) -> dict[str, Any]:
    (line, column), (end_line, end_column) = (span.source.position(at) for at in (span.start, span.end))
    return {"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column}


def _uri(name: str) -> str:
    """Return a file's name as a URI reference."""
    return Path(name).as_uri() if Path(name).is_absolute() else quote(os.fsencode(name))
