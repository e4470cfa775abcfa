"""What a person, a program and a code host are shown of one report."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from baton.base.errors import ConfigError
from baton.check.bundle import Bundle, File
from baton.check.commands.launch import Launch, Version
from baton.check.finding import Edit, Finding, Fix, Harm
from baton.check.kubernetes.manifests import Manifests, Object, Workload
from baton.check.kubernetes.workload import Pod
from baton.check.report import pages as explain
from baton.check.report.document import to_json
from baton.check.report.sarif import to_sarif
from baton.check.report.terminal import print_report
from baton.check.run import Ignored, Report
from baton.check.text import Source, Span
from baton.check.yaml.tree import Mapping

DEPLOY = Source(
    "deploy.yaml",
    "kind: DynamoGraphDeployment\nenv:\n"
    + "# padding\n" * 6
    + "\t- name: VLLM_MOE_DP_CHUNK_SIZE\n  value: '1'\nargs:\n- --大きい=型\n",
)
OTHER = Source("dir with space/other#1.sh", "vllm serve m\n")


def span_of(word: str, source: Source = DEPLOY) -> Span:
    at = source.text.index(word)
    return source.span(at, at + len(word))


def launch_of(source: Source, service: str | None, graph: str | None = None, why: str = "no image says it") -> Launch:
    span = source.span(0, 4)
    node = Mapping({}, span)
    made = Object("v1", "DynamoGraphDeployment", graph, None, node)
    workload = Workload(made, service, None, 1, 1, "", Pod((), None), None, node, span) if service else None
    engine = "dynamo.frontend" if service == "Frontend" else "dynamo.vllm" if service else "vllm"
    return Launch(
        engine=engine,
        start=span,
        words=(),
        options=(),
        positionals=(),
        env={},
        version=Version(engine, "0.8.0" if service else None, (), why, None),
        workload=workload,
        container=None,
        is_complete=True,
        is_env_complete=True,
        role="decode" if service == "decode" else None,
        role_span=None,
        intended=None,
        nodes=None,
        gpus_per_node=None,
    )


def bundle_of(*launches: Launch, sources: tuple[Source, ...] = (DEPLOY, OTHER)) -> Bundle:
    return Bundle(tuple(File(s, "yaml", (), ()) for s in sources), Manifests(), (), launches)


ERROR = Finding(
    span=span_of("VLLM_MOE_DP_CHUNK_SIZE"),
    message="VLLM_MOE_DP_CHUNK_SIZE does nothing: vLLM 0.20.2 no longer reads it",
    evidence=("vLLM 0.11.0 to 0.19.1 read it", "a sum:\n1 + 1\n= 2"),
    fix=Fix("remove the variable", (Edit(span_of("\t- name: VLLM_MOE_DP_CHUNK_SIZE\n"), ""),)),
    also=((span_of("value: '1'"), "its value"),),
    see=("https://example.org/1",),
    harm=Harm.WRONG_ANSWERS,
    code="removed-env",
)
WARNING = Finding(span=span_of("型"), message="wide", harm=Harm.WASTED, code="wide-rule")
NOTE = Finding(span=OTHER.span(0, 0), message="cannot tell", harm=Harm.UNKNOWN, code="internal-error")
IMAGE = "dynamo 0.8.0 (vLLM 0.12.0), from the image tag"
REPORT = Report(
    bundle_of(
        launch_of(DEPLOY, "Frontend", "vllm-dsr1", IMAGE),
        launch_of(DEPLOY, "decode", "vllm-dsr1", IMAGE),
        launch_of(DEPLOY, "prefill", "vllm-dsr1", IMAGE),
        launch_of(OTHER, None),
    ),
    (ERROR, WARNING, NOTE),
    (Ignored(replace(WARNING, code="ignore-comment"), "we know"),),
)


def text_of(report: Report, *, quiet: bool = False, width: int = 80, **terminal: Any) -> str:
    out = io.StringIO()
    print_report(Console(file=out, width=width, **terminal), report, quiet=quiet)
    return out.getvalue()


GOLDEN = """\
error[removed-env]: VLLM_MOE_DP_CHUNK_SIZE does nothing: vLLM 0.20.2 no longer reads it
 --> deploy.yaml:9:10
  |
9 |     - name: VLLM_MOE_DP_CHUNK_SIZE
  |             ^^^^^^^^^^^^^^^^^^^^^^
  = because: vLLM 0.11.0 to 0.19.1 read it
  = because: a sum:
             1 + 1
             = 2
  = also: deploy.yaml:10:3: its value
  = fix: remove the variable
  = see: https://example.org/1

warning[wide-rule]: wide
  --> deploy.yaml:12:9
   |
12 | - --大きい=型
   |            ^^

note[internal-error]: cannot tell
 --> dir with space/other#1.sh:1:1
  |
1 | vllm serve m
  | ^

1 front door (Frontend of vllm-dsr1), dynamo.frontend: dynamo 0.8.0 (vLLM 0.12.0), from the image tag
2 engines (decode, prefill of vllm-dsr1), dynamo.vllm: dynamo 0.8.0 (vLLM 0.12.0), from the image tag
1 engine, vllm: no image says it
1 error, 1 warning, 1 note in 2 files (1 ignored)
"""


def test_text_is_a_compilers() -> None:
    """Each fault with its line, what was understood, and the count; nothing but characters without a terminal."""
    assert text_of(REPORT) == GOLDEN


@pytest.mark.parametrize("width", [20, 300])
def test_the_width_changes_nothing(width: int) -> None:
    """A report in a log is the same report."""
    assert text_of(REPORT, width=width) == GOLDEN


def test_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets it, unless NO_COLOR says no."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;31merror[removed-env]" in text_of(REPORT, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    shown = text_of(REPORT, force_terminal=True, color_system="standard")
    assert "\x1b[1;31m" not in shown
    assert "\x1b[34m" not in shown


def test_quiet_leaves_out_notes_and_says_so() -> None:
    """Errors and warnings stay."""
    shown = text_of(REPORT, quiet=True)
    assert "note[" not in shown
    assert "warning[wide-rule]" in shown
    assert shown.endswith("1 error, 1 warning in 2 files (1 ignored, 1 note not shown)\n")


def test_clean_says_what_was_checked() -> None:
    """And that there was no engine, if there was none."""
    assert text_of(Report(bundle_of(launch_of(OTHER, None)), (), ())) == (
        "1 engine, vllm: no image says it\nno faults found in 2 files\n"
    )
    made = Object("v1", "Secret", "s", None, Mapping({}, DEPLOY.span(0, 0)))
    nothing = Bundle((File(DEPLOY, "yaml", (), ()),), Manifests((made,)), (), ())
    assert text_of(Report(nothing, (), ())) == (
        "no engine command line found in 1 file; checked: 1 Kubernetes object\nno faults found in 1 file\n"
    )
    assert text_of(Report(bundle_of(), (), ())).startswith(
        "no engine command line found in 2 files, nor anything else that is checked\n"
    )


def test_many_engines_stay_one_line() -> None:
    """A hundred manifests do not give a hundred lines."""
    launches = [launch_of(s, f"w{n}", why="x") for s in (DEPLOY, OTHER) for n in range(6)]
    assert text_of(Report(bundle_of(*launches), (), ())).startswith(
        "12 engines in 2 files (w0, w1, w2, w3 and 2 more), dynamo.vllm: x\n"
    )


def excerpt(text: str, start: int, end: int) -> tuple[str, str]:
    source = Source("a", text)
    finding = Finding(span=source.span(start, end), message="m", harm=Harm.WASTED, code="c")
    _, _, _, shown, marks, *_ = text_of(Report(bundle_of(sources=(source,)), (finding,), ())).splitlines()
    return shown, marks


def test_a_long_line_is_cut_around_the_stretch() -> None:
    """Both ends of the cut are marked, and the marks stand below the stretch."""
    shown, marks = excerpt("a" * 500 + "BAD" + "b" * 500, 500, 503)
    assert shown.startswith("1 | …aaa")
    assert shown.endswith("bbb…")
    assert len(shown) == 4 + 162
    assert shown[marks.index("^") :].startswith("BAD")
    assert marks.count("^") == 3
    assert excerpt("a" * 500, 490, 500)[0].endswith("aaa")
    assert len(excerpt("a" * 5000, 0, 5000)[1]) == 4 + 160


def test_a_stretch_of_many_lines_is_marked_to_the_end_of_the_first() -> None:
    """The place is where it begins."""
    assert excerpt("one: two\nthree\n", 5, 14) == ("1 | one: two", "  |      ^^^")


def test_a_stretch_behind_the_end_is_shown() -> None:
    """What is missing at the end of a file has a place too."""
    assert excerpt("one\n", 4, 4) == ("2 |", "  | ^")
    assert excerpt("", 0, 0) == ("1 |", "  | ^")


def test_a_file_cannot_write_to_the_terminal() -> None:
    """Escape sequences, and characters that turn the reading direction, are shown as characters that do not print."""
    shown, _ = excerpt("a\x1b[31m\u202eb\x07[bold]\n", 0, 1)
    assert shown == "1 | a\ufffd[31m\ufffdb\ufffd[bold]"


def test_json_has_everything() -> None:
    """Places from 1, ends behind the last character; the same report gives the same bytes."""
    document = json.loads(to_json(REPORT))
    assert to_json(REPORT) == to_json(REPORT)
    assert set(document) == {"baton", "format", "files", "launches", "findings", "ignored", "needs"}
    assert document["files"] == ["deploy.yaml", "dir with space/other#1.sh"]
    assert document["launches"][1] == {
        "file": "deploy.yaml",
        "line": 1,
        "column": 1,
        "engine": "dynamo.vllm",
        "version": "0.8.0",
        "why": IMAGE,
        "role": "decode",
        "workload": "decode",
    }
    assert document["findings"][0] == {
        "code": "removed-env",
        "severity": "error",
        "harm": "wrong_answers",
        "file": "deploy.yaml",
        "line": 9,
        "column": 10,
        "end_line": 9,
        "end_column": 32,
        "message": ERROR.message,
        "evidence": list(ERROR.evidence),
        "fix": {
            "words": "remove the variable",
            "edits": [
                {"file": "deploy.yaml", "start": {"line": 9, "column": 1}, "end": {"line": 10, "column": 1}, "text": ""}
            ],
        },
        "also": [
            {
                "file": "deploy.yaml",
                "line": 10,
                "column": 3,
                "end_line": 10,
                "end_column": 13,
                "message": "its value",
            }
        ],
        "see": ["https://example.org/1"],
    }
    assert [(one["code"], one["reason"]) for one in document["ignored"]] == [("ignore-comment", "we know")]


def test_sarif_keeps_the_rules_of_sarif() -> None:
    """What SARIF 2.1.0 demands of the properties that are used (sections 3.14, 3.19, 3.27, 3.30, 3.49, 3.55)."""
    log = json.loads(to_sarif(REPORT))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "baton"
    assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(set(ids)) == len(ids)
    for rule in driver["rules"]:
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        for message in ("shortDescription", "fullDescription", "help"):
            assert rule[message]["text"]
        assert rule["help"]["markdown"].startswith(f"# {rule['id']}: ")
    assert len(run["results"]) == 4
    for result in run["results"]:
        check_result(result, ids)
    suppressed = [result["suppressions"] for result in run["results"]]
    assert suppressed == [[], [], [], [{"kind": "inSource", "justification": "we know"}]]


def check_result(result: dict[str, Any], ids: list[str]) -> None:
    assert result["level"] in ("none", "note", "warning", "error")
    assert result["message"]["text"]
    if "ruleIndex" in result:
        assert ids[result["ruleIndex"]] == result["ruleId"]
    places = [*result["locations"], *result.get("relatedLocations", [])]
    related = [place["id"] for place in result.get("relatedLocations", [])]
    assert len(set(related)) == len(related)
    for place in places:
        check_region(place["physicalLocation"]["region"])
        assert place["physicalLocation"]["artifactLocation"]["uri"] in (
            "deploy.yaml",
            "dir%20with%20space/other%231.sh",
        )
    for fix in result.get("fixes", []):
        assert fix["artifactChanges"]
        for change in fix["artifactChanges"]:
            assert change["replacements"]
            for replacement in change["replacements"]:
                check_region(replacement["deletedRegion"])


def check_region(region: dict[str, int]) -> None:
    start, end = (region["startLine"], region["startColumn"]), (region["endLine"], region["endColumn"])
    assert (1, 1) <= start <= end
    assert min(*start, *end) >= 1


def test_sarif_says_what_the_text_says() -> None:
    """Level, place, related place, repair, and the pages of the codes that occur."""
    (run,) = json.loads(to_sarif(REPORT))["runs"]
    first = run["results"][0]
    assert (first["ruleId"], first["level"], first["properties"]) == (
        "removed-env",
        "error",
        {"harm": "wrong_answers"},
    )
    assert first["message"]["text"].splitlines() == [
        ERROR.message,
        *"\n".join(ERROR.evidence).splitlines(),
        "fix: remove the variable",
        "see: https://example.org/1",
    ]
    region = {"startLine": 9, "startColumn": 10, "endLine": 9, "endColumn": 32}
    assert first["locations"][0]["physicalLocation"]["region"] == region
    assert first["relatedLocations"][0]["message"]["text"] == "its value"
    (change,) = first["fixes"][0]["artifactChanges"]
    assert change["replacements"] == [
        {
            "deletedRegion": {"startLine": 9, "startColumn": 1, "endLine": 10, "endColumn": 1},
            "insertedContent": {"text": ""},
        }
    ]
    assert {"ignore-comment", "internal-error"} <= {rule["id"] for rule in run["tool"]["driver"]["rules"]}


def test_sarif_of_an_absolute_path_is_a_file_uri() -> None:
    """A relative reference stays one."""
    source = Source("/a b/c.yaml", "x\n")
    finding = Finding(span=source.span(0, 1), message="m", harm=Harm.WASTED, code="c")
    (run,) = json.loads(to_sarif(Report(bundle_of(sources=(source,)), (finding,), ())))["runs"]
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "file:///a%20b/c.yaml"}


def test_every_code_has_a_page() -> None:
    """With its title, what it does, and files that show it; worst first in the list."""
    known = explain.codes()
    assert {"ignore-comment", "internal-error"} <= {rule.code for rule in known}
    assert [rule.harm for rule in known] == sorted(rule.harm for rule in known)
    for rule in known:
        page = explain.page(rule.code)
        assert page.startswith(f"# {rule.code}: {rule.title}\n\n{rule.harm.severity}: ")
        assert explain.body(rule) in page
        for shown in (rule.fires, rule.silent, *rule.see):
            assert shown.strip("\n") in page
    listed = explain.listing().splitlines()
    assert [line.split()[:2] for line in listed] == [[rule.harm.severity, rule.code] for rule in known]


def test_an_unknown_code_is_guessed() -> None:
    """What the person meant is named, and where all codes are."""
    with pytest.raises(ConfigError, match=r"no code 'ignore-coment'; did you mean ignore-comment\?"):
        explain.page("ignore-coment")
    with pytest.raises(ConfigError, match=r"no code 'zzz'; `baton check --explain all` lists them"):
        explain.page("zzz")
