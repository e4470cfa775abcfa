"""`baton check` over whole manifests: the published recipes, small ones with planted faults, and clean ones.

Each folder of `published` and `faulty` has an `expected.yaml`. faults: what must be found, on a line that has the text
(one of the texts), in the block that starts with the line `within`. allowed: what may be found besides, and why.
silent: what looks wrong there and is right. No other error or warning may come.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from baton.check.bundle import read_bundle
from baton.check.finding import Finding, Harm
from baton.check.rule import all_rules, rule
from baton.check.run import check

CORPUS = Path(__file__).parent / "corpus"
CASES = sorted(p.parent for folder in ("published", "faulty") for p in (CORPUS / folder).glob("*/expected.yaml"))
CLEAN = sorted((CORPUS / "clean").iterdir())


def name_of(path: Path) -> str:
    return str(path.relative_to(CORPUS))


def files_of(case: Path) -> list[Path]:
    return [case] if case.is_file() else sorted(p for p in case.rglob("*") if p.is_file() and p.name != "expected.yaml")


@cache
def findings_of(case: Path) -> tuple[Finding, ...]:
    return check(read_bundle(files_of(case), engine=None, accelerator=None)).findings


@cache
def expected_of(case: Path) -> dict[str, list[dict[str, Any]]]:
    return yaml.safe_load((case / "expected.yaml").read_text())


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def block(lines: list[str], first: str) -> Iterator[int]:
    """Yield the numbers, from 1, of the line that is `first` and of all that is indented below it."""
    start = next(at for at, line in enumerate(lines) if line.strip() == first)
    indent = len(lines[start]) - len(lines[start].lstrip())
    yield start + 1
    for at in range(start + 1, len(lines)):
        line = lines[at]
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            return
        yield at + 1


def places(case: Path, item: dict[str, Any]) -> set[tuple[str, int]]:
    """Return the lines an entry of expected.yaml means, as file and number."""
    path = case / item["file"]
    lines = path.read_text().splitlines()
    numbers = block(lines, item["within"]) if "within" in item else range(1, len(lines) + 1)
    return {(str(path), n) for n in numbers if any(text in lines[n - 1] for text in listed(item["text"]))}


def covers(case: Path, item: dict[str, Any], finding: Finding) -> bool:
    at = (finding.span.source.name, finding.span.line)
    return finding.code in listed(item["rule"]) and at in places(case, item)


def severity(finding: Finding) -> str:
    harm = finding.harm if finding.harm is not None else rule(finding.code).harm
    return harm.severity


def told(finding: Finding) -> str:
    return f"{finding.span}: {severity(finding)} [{finding.code}] {finding.message}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_every_fault_is_found(case: Path) -> None:
    found = findings_of(case)
    missed = [i for i in expected_of(case)["faults"] if not any(covers(case, i, f) for f in found)]
    assert not missed, "\n".join([*map(str, missed), "found:", *map(told, found)])


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_nothing_else_is_an_error_or_a_warning(case: Path) -> None:
    items = expected_of(case)["faults"] + expected_of(case)["allowed"]
    loud = [f for f in findings_of(case) if severity(f) != "note"]
    assert [told(f) for f in loud if not any(covers(case, i, f) for i in items)] == []


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_what_is_right_is_left_alone(case: Path) -> None:
    silent = expected_of(case)["silent"]
    assert [told(f) for f in findings_of(case) if any(covers(case, i, f) for i in silent)] == []


@pytest.mark.parametrize("case", CLEAN, ids=name_of)
def test_clean_files_give_no_error_and_no_warning(case: Path) -> None:
    assert [told(f) for f in findings_of(case) if severity(f) != "note"] == []


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_what_is_expected_is_there_and_has_a_rule(case: Path) -> None:
    codes = {r.code for r in all_rules()}
    harms = {harm.name.lower() for harm in Harm}
    for kind, items in expected_of(case).items():
        for item in items:
            assert places(case, item), item
            assert kind == "allowed" or set(listed(item["rule"])) <= codes, item
            assert kind != "faults" or (item["harm"] in harms and item["fact"]), item
            assert kind == "faults" or item["why"], item


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_no_line_is_both_a_fault_and_right(case: Path) -> None:
    expected = expected_of(case)
    for right in expected["silent"]:
        for fault in expected["faults"] + expected["allowed"]:
            shared = set(listed(right["rule"])) & set(listed(fault["rule"]))
            assert not shared or not places(case, right) & places(case, fault), (right, fault)
