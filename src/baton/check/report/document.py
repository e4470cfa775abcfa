"""A report as JSON for programs; the same files give the same bytes.

Lines and columns count from 1, a column in characters; an end is behind the last character. `format` changes when a
field changes its meaning or goes away.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from baton.check.commands.launch import Launch
from baton.check.finding import Edit, Finding, Fix
from baton.check.needs import Need
from baton.check.run import Report, harm_of
from baton.check.text import Span

FORMAT = 1


def to_json(report: Report) -> str:
    """Return a report as one JSON object."""
    document = {
        "baton": version("baton"),
        "format": FORMAT,
        "files": [file.source.name for file in report.bundle.files],
        "launches": [_launch(launch) for launch in report.bundle.launches],
        "findings": [_finding(finding) for finding in report.findings],
        "ignored": [{**_finding(ignored.finding), "reason": ignored.reason} for ignored in report.ignored],
        "needs": [_need(need) for need in report.needs],
    }
    return json.dumps(document, indent=2) + "\n"


def _launch(launch: Launch) -> dict[str, Any]:
    workload = launch.workload
    return {
        **_start(launch.start),
        "engine": launch.engine,
        "version": launch.version.stated,
        "why": launch.version.why,
        "role": launch.role,
        "workload": workload.name if workload is not None else None,
    }


def _need(need: Need) -> dict[str, Any]:
    objects = [{"kind": each.kind, "name": each.name, **_start(each.span)} for each in need.objects]
    return {"what": need.what, "objects": objects}


def _finding(finding: Finding) -> dict[str, Any]:
    harm = harm_of(finding)
    return {
        "code": finding.code,
        "severity": harm.severity,
        "harm": harm.name.lower(),
        **_place(finding.span),
        "message": finding.message,
        "evidence": list(finding.evidence),
        "fix": _fix(finding.fix) if finding.fix is not None else None,
        "also": [{**_place(span), "message": part} for span, part in finding.also],
        "see": list(finding.see),
    }


def _fix(fix: Fix) -> dict[str, Any]:
    return {"words": fix.words, "edits": [_edit(edit) for edit in fix.edits]}


def _edit(edit: Edit) -> dict[str, Any]:
    source = edit.span.source
    ends = (source.position(offset) for offset in (edit.span.start, edit.span.end))
    start, end = ({"line": line, "column": column} for line, column in ends)
    return {"file": source.name, "start": start, "end": end, "text": edit.text}


def _start(span: Span) -> dict[str, Any]:
    return {"file": span.source.name, "line": span.line, "column": span.column}


def _place(span: Span) -> dict[str, Any]:
    end_line, end_column = span.source.position(span.end)
    return {**_start(span), "end_line": end_line, "end_column": end_column}
