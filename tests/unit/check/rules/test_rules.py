"""Every rule fires where it says so, stays silent where it says so, has a page, and its fixes do what they say."""

import re

import pytest

from baton.check.bundle import of_sources
from baton.check.finding import Edit, Harm
from baton.check.rule import Rule, all_rules
from baton.check.run import Report, check
from baton.check.text import Source

RULES = all_rules()


def report(text: str) -> Report:
    suffix = ".sh" if text.startswith("#!") else ".md" if text.startswith("# ") else ".yaml"
    return check(of_sources([Source(f"file{suffix}", text)]))


def applied(text: str, edits: list[Edit]) -> str:
    for edit in sorted(set(edits), key=lambda e: -e.span.start):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
def test_it_fires_and_stays_silent(rule: Rule) -> None:
    found = [f for f in report(rule.fires).findings if f.code == rule.code]
    assert found, "it does not fire in its own FIRES"
    quiet = [f for f in report(rule.silent).findings if f.code == rule.code]
    assert not quiet, quiet
    assert not [f for f in report(rule.fires).findings if f.code == "internal-error"]
    for finding in found:
        assert finding.message
        assert "\n" not in finding.message
        assert not finding.message.endswith(".")
        assert finding.span.end > finding.span.start


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
def test_its_silent_example_has_no_other_error(rule: Rule) -> None:
    """So that a person who copies it does not walk into another rule."""
    wrong = [f"{f.code}: {f.message}" for f in report(rule.silent).findings if (f.harm or 0) <= Harm.NOT_STARTING]
    assert not wrong


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
def test_its_fix_ends_the_fault(rule: Rule) -> None:
    """Where a fix has edits, the file with them made has that fault no more, and no error of another kind."""
    before = report(rule.fires)
    own = [f for f in before.findings if f.code == rule.code and f.fix is not None and f.fix.edits]
    if not own:
        return
    after = report(applied(rule.fires, [e for f in own for e in (f.fix.edits if f.fix else ())]))
    spots = {f.message for f in own}
    assert not [f.message for f in after.findings if f.code == rule.code and f.message in spots]
    known = {f.code for f in before.findings}
    assert not [f"{f.code}: {f.message}" for f in after.findings if f.code not in known]


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.code)
def test_its_page_reads_well(rule: Rule) -> None:
    assert len(rule.title) < 110
    assert rule.page.splitlines()[0].endswith(".")
    assert len(rule.page.split()) > 30, "say what happens, why, and what to do"
    assert all(re.fullmatch(r"https://\S+", link) for link in rule.see)
