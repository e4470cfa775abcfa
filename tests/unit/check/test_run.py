"""One run: every rule is heard, in order of harm, and comments in the files set findings aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from baton.check import run
from baton.check.bundle import Bundle, File
from baton.check.finding import Finding, Harm
from baton.check.kubernetes.manifests import Manifests
from baton.check.rule import Rule
from baton.check.run import Report
from baton.check.text import Source


def bundle_of(*sources: Source) -> Bundle:
    files = tuple(File(source, "yaml", (), ()) for source in sources)
    return Bundle(files, Manifests(), (), ())


def rule_of(code: str, harm: Harm, check: Callable[[Bundle], Iterator[Finding]]) -> Rule:
    see = (f"https://example.org/{code}",)
    return Rule(code=code, title=code, page=code, harm=harm, see=see, fires="", silent="", check=check)


def saying(code: str, *words: str, harm: Harm = Harm.WASTED) -> Rule:
    """A rule that finds every place of some words."""

    def check(bundle: Bundle) -> Iterator[Finding]:
        for file in bundle.files:
            for word in words:
                at = file.source.text.find(word)
                while at >= 0:
                    yield Finding(span=file.source.span(at, at + len(word)), message=f"{word} is wrong")
                    at = file.source.text.find(word, at + 1)

    return rule_of(code, harm, check)


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put rules of the test in the place of baton's."""
    return lambda *found: monkeypatch.setattr(run, "all_rules", lambda: found)


def lines(found: Sequence[Finding]) -> list[str]:
    return [f"{f.span}: {f.code}" for f in found]


def test_worst_first_then_by_file_then_by_place(rules: Callable[..., None]) -> None:
    """The order is of harm, whatever the order of rules."""
    rules(saying("mild", "two", "one", harm=Harm.FRAGILE), saying("bad", "three", harm=Harm.WRONG_ANSWERS))
    report = run.check(bundle_of(Source("b.yaml", "one two\nthree\n"), Source("a.yaml", "one\n")))
    assert lines(report.findings) == ["b.yaml:2:1: bad", "b.yaml:1:1: mild", "b.yaml:1:5: mild", "a.yaml:1:1: mild"]


def test_a_finding_is_completed_from_its_rule_and_said_once(rules: Callable[..., None]) -> None:
    """Code, harm and threads are the rule's unless the finding has its own."""
    source = Source("a.yaml", "one\n")

    def check(bundle: Bundle) -> Iterator[Finding]:
        for _ in range(3):
            yield Finding(span=source.span(0, 3), message="plain")
        yield Finding(span=source.span(0, 3), message="own", code="mine", harm=Harm.WRONG_ANSWERS, see=("https://x",))

    rules(rule_of("r", Harm.WASTED, check))
    own, plain = run.check(bundle_of(source)).findings
    assert (own.code, own.harm, own.see) == ("mine", Harm.WRONG_ANSWERS, ("https://x",))
    assert (plain.code, plain.harm, plain.see) == ("r", Harm.WASTED, ("https://example.org/r",))


def test_a_rule_that_breaks_costs_only_itself(rules: Callable[..., None]) -> None:
    """What it had found stays, what others find stays, and the break is a note that names it."""
    source = Source("a.yaml", "one two\n")

    def check(bundle: Bundle) -> Iterator[Finding]:
        yield Finding(span=source.span(4, 7), message="found before")
        raise KeyError("no\nsuch")

    rules(rule_of("breaks", Harm.WASTED, check), saying("works", "one"))
    report = run.check(bundle_of(source))
    assert lines(report.findings) == ["a.yaml:1:1: works", "a.yaml:1:5: breaks", "a.yaml:1:1: internal-error"]
    broke = report.findings[-1]
    assert broke.harm is Harm.UNKNOWN
    assert broke.message == r"the rule breaks broke on these files: KeyError: 'no\nsuch'"
    assert broke.evidence[0].startswith("raised in test_run.py:")
    assert broke.fix is not None
    assert "report it with the code breaks" in broke.fix.words


def test_nothing_given_nothing_found(rules: Callable[..., None]) -> None:
    """Without files no rule is asked, so none can break."""

    def check(bundle: Bundle) -> Iterator[Finding]:
        raise RuntimeError

    rules(rule_of("breaks", Harm.WASTED, check))
    assert run.check(bundle_of()).findings == ()


def checked(text: str) -> Report:
    return run.check(bundle_of(Source("a.yaml", text)))


@pytest.mark.parametrize(
    "text",
    [
        "key: bad  # baton: ignore[r] we know\n",
        "# baton: ignore[r] we know\nkey: bad\n",
        "# baton: ignore[r] we know\n# why that is\nkey: bad\n",
        "# other words\n# baton: ignore[other, r] we know\n# and they know\nkey: [bad, worse]\n",
        "# baton: ignore-file[r] we know\nother: 1\nkey: bad\n",
        "# Copyright\n\n# baton: ignore-file[r] we know\n---\nkey: bad\n",
        "key:  # baton: ignore[other] elsewhere worse\n  - bad  #baton:ignore[R]: we know\n",
        "run: |\n  # baton: ignore[r] we know\n  vllm serve m \\\n    --one \\\n    --bad\n",
        "run: |\n  vllm serve m --bad \\\n    --one  # baton: ignore[r] we know\n",
    ],
)
def test_a_comment_sets_a_finding_aside(rules: Callable[..., None], text: str) -> None:
    """At the line's end, alone above it, above the command, or for the file; with its reason."""
    rules(saying("r", "bad"), saying("other", "worse"))
    report = checked(text)
    assert "r" not in {finding.code for finding in report.findings}
    assert [(one.finding.code, one.reason) for one in report.ignored if one.finding.code == "r"] == [("r", "we know")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key: bad  # baton: ignore[r]\n", "the comment gives no reason, so nothing is ignored"),
        ("key: bad  # baton: ignore we know\n", "the comment names no code, so nothing is ignored"),
        ("key: bad  # baton: ignore[] we know\n", "the comment names no code, so nothing is ignored"),
        ("key: bad  # baton: ignore[othr] we know\n", "there is no rule 'othr' to ignore"),
        (
            "key: bad\n# baton: ignore-file[r] we know\nx: 1\n",
            "ignore-file stands below the head of the file, so nothing is ignored",
        ),
        ("# baton: ignore[r] we know\nx: 1\nkey: bad\n", "there is no r on its line to ignore"),
        ("x: 1  # baton: ignore[r] we know\nkey: bad\n", "there is no r on its line to ignore"),
        ("key: bad\n# baton: ignore[r] we know\n", "there is no r on its line to ignore"),
        ("# baton: ignore-file[other] we know\nkey: bad\n", "there is no other in this file to ignore"),
    ],
)
def test_a_comment_that_does_nothing_is_said(rules: Callable[..., None], text: str, message: str) -> None:
    """And the finding stands."""
    rules(saying("r", "bad"), saying("other", "worse"))
    report = checked(text)
    assert report.ignored == ()
    assert {finding.code for finding in report.findings} == {"r", "ignore-comment"}
    (fault,) = (finding for finding in report.findings if finding.code == "ignore-comment")
    assert fault.message == message
    assert fault.span.written.startswith("# baton: ignore")
    assert fault.harm is (Harm.UNKNOWN if "there is no " in message and "rule" not in message else Harm.FRAGILE)


def test_a_misspelt_code_is_guessed(rules: Callable[..., None]) -> None:
    """The nearest code is the fix."""
    rules(saying("removed-flag", "bad"))
    fix = checked("key: bad  # baton: ignore[remove-flag] we know\n").findings[-1].fix
    assert fix is not None
    assert fix.words == "did you mean removed-flag?"


def test_a_comment_for_a_broken_rule_is_not_blamed(rules: Callable[..., None]) -> None:
    """Whether it has something to leave out is not known then."""

    def check(bundle: Bundle) -> Iterator[Finding]:
        raise RuntimeError("x")

    rules(rule_of("r", Harm.WASTED, check))
    assert [f.code for f in checked("key: bad  # baton: ignore[r] we know\n").findings] == ["internal-error"]


def test_words_that_only_look_like_one(rules: Callable[..., None]) -> None:
    """Strings and other comments are left alone."""
    rules(saying("r", "bad"))
    text = 'a: "# baton: ignore[x]"\n# baton: 1\n# baton ignores nothing\n# baton: ignored before\n'
    assert checked(text).findings == ()
