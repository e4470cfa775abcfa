"""Whatever a file holds, checking it ends in a report: no traceback, no broken rule, every place inside the file."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from baton.check.bundle import of_sources
from baton.check.report import document, sarif
from baton.check.run import INTERNAL_ERROR, check
from baton.check.text import Source

CORPUS = Path(__file__).parent / "corpus"
TEXTS = [p.read_text(encoding="utf-8") for p in sorted(CORPUS.rglob("*")) if p.is_file() and p.name != "expected.yaml"]
SCRAPS = st.sampled_from(
    [
        "\n", "  ", "- ", ": ", "'", '"', "|", ">", "{{ .x }}", "${X}", "$(", "`", "<<EOF\n", "\\\n", "#", "--", "=",
        "[", "{", "\u00e9\u2028", "\x00", "---\n", "&a ", "*a", "99999999999999999999", "-1", "nan", "null",
        "--data-parallel-size", '{"kv_connector":', "python3 -m dynamo.vllm ", "kind: DynamoGraphDeployment\n",
        "image: ", "vllm serve ",
    ]
)  # fmt: skip
NAMES = st.sampled_from(["file.yaml", "file.sh", "file.md", "file.txt"])


@st.composite
def broken(draw: st.DrawFn) -> str:
    """A file of the corpus with pieces cut out, doubled, moved and put in."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 80)))
        text = text[:start] + draw(SCRAPS | st.just(text[start:end] * 2) | st.just("")) + text[end:]
    return text


@given(broken() | st.text(max_size=200) | st.lists(SCRAPS, max_size=20).map("".join), NAMES)
@settings(max_examples=400)
def test_any_text_ends_in_a_report(text: str, name: str) -> None:
    report = check(of_sources([Source(name, text)]))
    for finding in report.findings:
        assert finding.code != INTERNAL_ERROR, finding
        assert 0 <= finding.span.start <= finding.span.end <= len(text)
        assert finding.span.line <= text.count("\n") + 1
        for edit in finding.fix.edits if finding.fix is not None else ():
            assert 0 <= edit.span.start <= edit.span.end <= len(text)
    assert document.to_json(report)
    assert sarif.to_sarif(report)
