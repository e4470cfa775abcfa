"""YAML with places: every style, broken files, templates, aliases, comments; never an exception."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baton.check.text import Source
from baton.check.yaml import tree

LETTERS = st.text(alphabet="ab #:'\"\\-|>{}[]é\U0001f600\n\t,&*!%@`?", max_size=30)
PRINTABLE = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]) | st.sampled_from("\n\t"), max_size=40
)


def read(text: str) -> tree.Stream:
    return tree.read(Source("f.yaml", text))


def root(text: str) -> tree.Node:
    stream = read(text)
    assert not stream.faults, [fault.message for fault in stream.faults]
    return stream.documents[0]


def leaf(text: str, path: str) -> tree.Scalar:
    found = tree.scalar(root(text), path)
    assert found is not None
    return found


def plain(node: tree.Node) -> Any:
    """The values of a node as PyYAML's loader would give them, keys by their text."""
    if isinstance(node, tree.Scalar):
        return node.value
    if isinstance(node, tree.Mapping):
        return {key: plain(entry.value) for key, entry in node.entries.items()}
    return [plain(item) for item in node.items]


def placed(found: tree.Scalar) -> None:
    """Hold every character against the one in the file; those of escapes and folds stand at what makes them."""
    text, source = found.text, found.text.source.text
    assert len(text.offsets) == len(text.value) + 1
    assert all(found.span.start <= offset <= len(source) for offset in text.offsets)
    assert list(text.offsets) == sorted(text.offsets)
    for char, offset in zip(text.value, text.offsets, strict=False):
        assert source[offset] == char or source[offset] == "\\" or (char == " " and source[offset] == "\n"), (
            char,
            offset,
        )


class TestPlaces:
    @pytest.mark.parametrize("style", [None, "'", '"', "|", ">"])
    @given(
        value=LETTERS | PRINTABLE,
        width=st.integers(5, 40),
        indent=st.integers(2, 9),
        is_ascii=st.booleans(),
        line_break=st.sampled_from(["\n", "\r\n"]),
    )
    @settings(max_examples=150, deadline=None)
    def test_whatever_a_style_wrote_is_read_and_stands_in_its_place(
        self, style: str | None, value: str, width: int, indent: int, is_ascii: bool, line_break: str
    ) -> None:
        data = {"é": [{"x": ["-", value], "y": "z"}], "after": value}
        text = yaml.dump(
            data, default_style=style, width=width, indent=indent, allow_unicode=not is_ascii, line_break=line_break
        )
        document = root(text)
        for path in ("é.0.x.1", "after"):
            found = tree.scalar(document, path)
            assert found is not None
            assert found.text.value == value
            if not set(value) & set("\x85\u2028\u2029"):
                placed(found)

    @given(
        st.lists(st.sampled_from(["", "a", "b c", "  d", "\te", " ", "   ", "é#"]), max_size=8),
        st.sampled_from(["|", ">"]),
        st.sampled_from(["", "-", "+"]),
        st.integers(1, 4),
        st.booleans(),
        st.sampled_from(["", "\n", "\n\n", "\nb: 1\n", "\n\nb: 1\n", "\n# c\nb: 1\n"]),
    )
    @settings(max_examples=300, deadline=None)
    def test_block_scalars_with_every_header_are_those_of_pyyaml(
        self, lines: list[str], kind: str, chomp: str, indent: int, has_indent: bool, after: str
    ) -> None:
        body = "\n".join(" " * indent + line for line in lines)
        text = f"a: {kind}{indent if has_indent else ''}{chomp} # c\n{body}{after}"
        try:
            expected = yaml.load(text, Loader=yaml.CSafeLoader)["a"]
        except yaml.YAMLError:
            return
        found = leaf(text, "a")
        assert found.value == expected
        if found.value:
            assert found.text.offsets[0] != found.text.offsets[-1], "fell back on no places"
            placed(found)
        assert not found.span.written.endswith("\n")

    def test_a_word_of_a_script_in_a_block_scalar_is_found(self) -> None:
        found = leaf("args:\n  - |\n    set -e\n    exec vllm serve \\\n      --foo\n", "args.0")
        at = found.text.value.index("--foo")
        span = found.text.span(at, at + 5)
        assert (span.line, span.column, span.written) == (5, 7, "--foo")

    def test_double_quotes_undo_every_escape(self) -> None:
        text = r'a: "\0\a\b\t\n\v\f\r\e\N\_\x41\u00e9\U0001F600\"\/\\ x"'
        found = leaf(text, "a")
        assert found.value == '\0\a\b\t\n\v\f\r\x1b\x85\xa0Aé\U0001f600"/\\ x'
        assert found.text.span(11, 12).written == r"\x41"
        assert found.text.span(13, 14).written == r"\U0001F600"

    def test_double_quotes_join_lines_at_a_backslash(self) -> None:
        found = leaf('a: "one \\\n     two\n\n     three"\n', "a")
        assert found.value == "one two\nthree"
        assert found.text.span(4, 7).written == "two"
        placed(found)

    def test_a_value_on_one_line_may_be_edited_in_place(self) -> None:
        document = root("""{a: x, b: "y", c: 'it''s', d: "\\u00e9"}""")
        assert [tree.scalar(document, key).text.is_exact for key in "abcd"] == [True, True, False, False]  # type: ignore[union-attr]
        assert tree.scalar(document, "b").span.written == '"y"'  # type: ignore[union-attr]

    def test_a_byte_order_mark_and_windows_lines_do_not_shift_anything(self) -> None:
        document = root("\ufeffé: ü\r\nb: |\r\n  x\r\n  y\r\nc:\r\n  - 1\r\n")
        assert plain(document) == {"é": "ü", "b": "x\ny\n", "c": [1]}
        found = tree.scalar(document, "b")
        assert found is not None
        assert found.text.span(2, 3).written == "y"
        assert found.span.written == "|\r\n  x\r\n  y"
        assert tree.scalar(document, "c.0").span.line == 6  # type: ignore[union-attr]

    def test_spans_leave_out_comments_line_ends_tags_and_anchors(self) -> None:
        text = "a: &x !!str # c\n  1 # d\nb: &m\n  c: 2 # e\n\n# f\nd:\n- &i 3\n- |\n  t\n\n"
        document = root(text)
        assert isinstance(document, tree.Mapping)
        assert [entry.span.written for entry in document.entries.values()] == [
            "a: &x !!str # c\n  1",
            "b: &m\n  c: 2",
            "d:\n- &i 3\n- |\n  t",
        ]
        written = [node.span.written for node in tree.walk(document)]
        assert written[1:] == ["1", "c: 2", "2", "- &i 3\n- |\n  t", "3", "|\n  t"]


class TestValues:
    @pytest.mark.parametrize(
        ("written", "value"),
        [
            ("yes", True),
            ("Off", False),
            ("~", None),
            ("", None),
            ("0x1F", 31),
            ("010", 8),
            ("0o10", "0o10"),
            ("1_000", 1000),
            ("-3", -3),
            ("1.5", 1.5),
            ("1e3", "1e3"),
            ("2024-01-01", "2024-01-01"),
            ("1:30", "1:30"),
            ("'8'", "8"),
            ("!!str 8", "8"),
            ("!!int '8'", 8),
            ("!!int eight", "eight"),
            ("!!bool maybe", "maybe"),
            ("!own 8", "8"),
            ("0x_", "0x_"),
            ("9" * 5000, "9" * 5000),
            ("=", "="),
        ],
    )
    def test_a_scalar_is_what_yaml_makes_of_it(self, written: str, value: object) -> None:
        found = leaf(f"a: {written}\n", "a")
        assert (found.value, type(found.value)) == (value, type(value))

    def test_of_a_key_given_twice_the_last_counts(self) -> None:
        assert plain(root("a: 1\nb: 2\na: 3\n")) == {"a": 3, "b": 2}

    def test_keys_are_text_and_those_that_are_no_scalars_are_left_out(self) -> None:
        assert plain(root("1: a\nyes: b\n? [x]\n: c\nd: e\n")) == {"1": "a", "yes": "b", "d": "e"}

    def test_empty_documents_are_left_out(self) -> None:
        stream = read("# nothing\n---\n---\na: 1\n...\n---\n# c\n")
        assert [plain(document) for document in stream.documents] == [{"a": 1}]


class TestAliases:
    def test_an_alias_is_the_node_it_names_and_its_entry_stands_where_it_is_written(self) -> None:
        document = root("a: &x {k: v}\nb: *x\n")
        assert isinstance(document, tree.Mapping)
        assert document.entries["b"].value is document.entries["a"].value
        assert document.entries["b"].span.written == "b: *x"
        assert len(list(tree.walk(document))) == 3

    def test_merged_entries_give_way_to_those_written(self) -> None:
        text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 3\n"
        assert plain(root(text))["c"] == {"x": 3, "y": 1, "z": 2}

    def test_an_alias_inside_its_own_anchor_is_a_fault_and_not_a_circle(self) -> None:
        stream = read("a: &a\n  b: *a\n  c: 1\n")
        assert [(fault.span.written, "own anchor" in fault.message) for fault in stream.faults] == [("*a", True)]
        assert len(list(tree.walk(stream.documents[0]))) == 4

    def test_an_alias_of_nothing_is_a_fault_and_reading_goes_on(self) -> None:
        stream = read("a: *nope\nb: 1\n---\nc: &x 1\n---\nd: *x\n")
        assert [fault.span.line for fault in stream.faults] == [1, 6]
        assert tree.number(stream.documents[0], "b") == 1
        assert not tree.scalar(stream.documents[0], "a").is_known  # type: ignore[union-attr]

    @pytest.mark.parametrize("step", ["[*{0},*{0},*{0},*{0},*{0},*{0},*{0},*{0},*{0}]", "{{<<: [*{0}, *{0}], {1}: 1}}"])
    def test_a_billion_laughs_stay_cheap(self, step: str) -> None:
        names = [f"n{number}" for number in range(2000)]
        lines = ["n0: &n0 {x: 1}", *(f"{b}: &{b} " + step.format(a, b) for a, b in itertools.pairwise(names))]
        began = time.process_time()
        stream = read("\n".join(lines))
        assert sum(1 for _ in tree.walk(stream.documents[0])) < 50_000
        assert time.process_time() - began < 5
        assert _size(stream.documents[0]) < 300_000


def _size(node: tree.Node) -> int:
    """Nodes of a tree as one that goes down without care sees them: aliases over and over."""
    if isinstance(node, tree.Scalar):
        return 1
    parts = [e.value for e in node.entries.values()] if isinstance(node, tree.Mapping) else list(node.items)
    return 1 + sum(_size(part) for part in parts)


class TestBroken:
    def test_documents_around_a_broken_one_are_read_in_their_places(self) -> None:
        stream = read("a: 1\n---\nb: 2\nc: [}\n--- # next\nd: 4\n")
        assert [plain(document) for document in stream.documents] == [{"a": 1}, {"b": 2}, {"d": 4}]
        assert [str(fault.span) for fault in stream.faults] == ["f.yaml:4:5"]
        assert tree.scalar(stream.documents[2], "d").span.line == 6  # type: ignore[union-attr]
        assert [document.is_complete for document in stream.documents] == [True, False, True]

    @pytest.mark.parametrize(
        "text",
        [
            "a: 1\nb: c: d\n",
            "a: 1\n\tb: 2\n",
            "a: 1\nb: 'x\n",
            "a: 1\nb: [x, y\n",
            "a: 1\n- b\n",
            "a: 1\n b: 2\n",
            "a: 1\n]\n",
        ],
    )
    def test_what_stands_before_a_fault_is_read_and_not_taken_for_all(self, text: str) -> None:
        stream = read(text)
        assert len(stream.faults) == 1
        assert "\n" not in stream.faults[0].message
        assert [tree.string(document, "a") for document in stream.documents] == ["1"]
        assert not tree.mapping(stream.documents[0]).is_complete  # type: ignore[union-attr]

    def test_a_tab_is_called_a_tab(self) -> None:
        assert "tab" in read("a:\n\tb: 2\n").faults[0].message

    def test_a_control_character_is_a_fault_and_the_rest_is_read(self) -> None:
        stream = read("a: x\x07\nb: \ud800\nc: 1\n")
        assert [fault.span.line for fault in stream.faults] == [1]
        assert tree.number(stream.documents[0], "c") == 1

    @pytest.mark.parametrize(
        "text", ["[" * 1000, "[" * 1001, "[" * 100_000, "{a: " * 5000, "- " * 100_000, "? " * 5000]
    )
    def test_nesting_too_deep_is_a_fault(self, text: str) -> None:
        stream = read(text)
        assert "too deeply" in stream.faults[0].message
        assert sum(1 for document in stream.documents for _ in tree.walk(document)) <= 201

    def test_many_broken_documents_end_soon_and_that_is_said(self) -> None:
        faults = read("---\na: [\n" * 5000).faults
        assert len(faults) == 51
        assert "not read further" in faults[-1].message


class TestTemplates:
    HELM = """\
{{- $x := .Values.x }}
apiVersion: v1
{{- if .Values.on }}
metadata:
  name: {{ .Release.Name }}-w
  labels:
    {{- include "labels" . | nindent 4 }}
    app: w
{{- end }}
spec:
  env:
    {{- toYaml .Values.env | nindent 4 }}
  replicas: 2
  args:
    - --model
    - "{{ .Values.model | default "m" }}"
    - '{"a": {"b": 1}}'
    {{- range .Values.args }}
    - {{ . | quote }}
    {{- end }}
  {{ .Values.key }}: 1
  script: |
    {{- if .x }}
    echo {{ .y }}
    {{- end }}
  quiet: |
    echo
{{- if .z }}
last: 1
{{- end }}
"""

    def test_a_chart_is_read_around_its_actions(self) -> None:
        document = root(self.HELM)
        assert tree.string(document, "apiVersion") == "v1"
        assert tree.number(document, "spec.replicas") == 2
        assert tree.string(document, "spec.args.0") == "--model"
        assert tree.string(document, "spec.args.2") == '{"a": {"b": 1}}'
        assert tree.string(document, "spec.quiet") == "echo\n"
        assert tree.scalar(document, "last").span.line == 29  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            ("metadata.name", "{{ .Release.Name }}-w"),
            ("spec.args.1", '{{ .Values.model | default "m" }}'),
            ("spec.args.3", "{{ . | quote }}"),
            ("spec.env", ""),
            ("spec.script", "{{- if .x }}\necho {{ .y }}\n{{- end }}\n"),
        ],
    )
    def test_what_a_template_decides_is_not_known_and_as_written(self, path: str, value: str) -> None:
        found = leaf(self.HELM, path)
        assert (found.is_known, found.value, found.text.value) == (False, value, value)
        assert tree.string(root(self.HELM), path) is None

    def test_containers_that_a_template_may_add_to_are_not_complete(self) -> None:
        document = root(self.HELM)
        assert isinstance(document, tree.Mapping)
        assert {
            path: tree.find(document, path).is_complete for path in ("metadata", "metadata.labels", "spec", "spec.args")
        } == {  # type: ignore[union-attr]
            "metadata": True,
            "metadata.labels": False,
            "spec": False,
            "spec.args": False,
        }

    def test_an_include_of_unknown_depth_leaves_nothing_around_it_complete(self) -> None:
        document = root('a:\n  b: 1\n  c:\n    d: 1\n{{ include "x" . }}\ne:\n  f: 1\n')
        complete = [node.is_complete for node in tree.walk(document) if isinstance(node, tree.Mapping)]
        assert complete == [False, False, False, True]

    def test_a_block_scalar_that_may_go_on_is_not_known(self) -> None:
        assert not leaf('a: |\n{{ .Files.Get "x" | indent 2 }}\nb: 1\n', "a").is_known
        assert not leaf('a: |\n  x\n{{ .Files.Get "x" | indent 2 }}\n', "a").is_known
        assert leaf('a: |\n  x\n{{- include "x" . | nindent 0 }}\n', "a").is_known

    def test_a_marker_in_a_comment_or_in_text_breaks_nothing(self) -> None:
        text = "# {{ x\na: 'docker ps --format ''{{.Names}}'''\nb: |\n  printf '{%s}' }}\nc: 1 # {{/* y\nd: 2\n"
        document = root(text)
        assert (tree.number(document, "c"), tree.number(document, "d")) == (1, 2)
        assert not tree.scalar(document, "a").is_known  # type: ignore[union-attr]
        assert tree.scalar(document, "a").value == "docker ps --format '{{.Names}}'"  # type: ignore[union-attr]
        assert tree.string(document, "b") == "printf '{%s}' }}\n"

    def test_actions_over_several_lines_and_jinja_are_read_around(self) -> None:
        document = root('{{/* a: b\n  {{ c }} */}}\n{% if x %}\na: 1\n{% endif %}\nb: {{ dict\n  "k" 1 }}\nc: 3\n')
        assert (tree.number(document, "a"), tree.number(document, "c")) == (1, 3)
        assert not tree.scalar(document, "b").is_known  # type: ignore[union-attr]
        assert tree.scalar(document, "c").span.line == 8  # type: ignore[union-attr]

    def test_an_action_does_not_begin_in_one_quoted_value_and_end_in_another(self) -> None:
        stream = tree.read(Source("f.yaml", "a: '}}{{'\nb:\n- x:\n  - '-'\n  - '}}{{'\n  y: z\n"))
        assert not stream.faults
        assert tree.string(stream.documents[0], "b.0.y") == "z"

    def test_a_flow_sequence_with_a_bare_action_is_not_complete(self) -> None:
        document = root('a: ["x", {{ .y }}]\nb: ["x", "{{ .y }}"]\n')
        assert [tree.find(document, key).is_complete for key in "ab"] == [False, True]  # type: ignore[union-attr]


class TestPaths:
    DOCUMENT = "spec:\n  n: 3\n  s: '8'\n  w: eight\n  t: true\n  u: '+-3'\n  none:\n  list: [a, {b: c}]\n"

    def test_paths_lead_through_mappings_and_sequences(self) -> None:
        document = root(self.DOCUMENT)
        assert tree.string(document, "spec.list.1.b") == "c"
        assert [tree.find(document, path) for path in ("spec.list.2", "spec.list.x", "spec.n.x", "no.thing")] == [
            None
        ] * 4
        assert tree.find(document, "") is document
        assert tree.find(None, "a") is None

    def test_numbers_may_be_strings_but_not_words_or_booleans(self) -> None:
        document = root(self.DOCUMENT)
        assert [tree.number(document, f"spec.{key}") for key in ("n", "s", "w", "t", "u", "none", "list")] == [
            3,
            8,
            *[None] * 5,
        ]

    def test_each_helper_gives_only_its_own_kind(self) -> None:
        document = root(self.DOCUMENT)
        assert tree.string(document, "spec.n") == "3"
        assert tree.string(document, "spec.none") is None
        assert tree.scalar(document, "spec.none").value is None  # type: ignore[union-attr]
        assert tree.scalar(document, "spec.list") is None
        assert tree.mapping(document, "spec.list") is None
        assert len(tree.items(document, "spec.list")) == 2
        assert tree.items(document, "spec.n") == ()

    def test_a_walk_gives_parents_first_and_in_order(self) -> None:
        assert [type(node).__name__[0] for node in tree.walk(root("a: [1, {b: 2}]\nc: 3\n"))] == list("MSSMSS")


class TestComments:
    def at(self, text: str) -> list[tuple[str, bool]]:
        return [(found.span.written, found.alone) for found in tree.comments(Source("f", text))]

    def test_yaml_comments_are_not_those_in_scalars(self) -> None:
        text = "# one\na: 'x # y' # two\nb: x#y\nc: \"\n  # no\n  it's\"  # three \nd: it's # 'four\n"
        assert self.at(text) == [("# one", True), ("# two", False), ("# three", False), ("# 'four", False)]

    def test_comments_of_a_script_in_a_block_scalar_count(self) -> None:
        text = "a: | # head\n  echo 'x # y' # one\n  # two\n  ${#x} a#b\nb: 1 # three\n"
        assert [found for found, _ in self.at(text)] == ["# head", "# one", "# two", "# three"]

    def test_shell_comments_are_not_those_in_quotes(self) -> None:
        text = "#!/bin/bash\nvllm serve 'm # x' \"a # b\" --x=1 # baton: ignore[a] why\r\nfoo;# c\necho \\# d\n"
        assert self.at(text) == [("#!/bin/bash", True), ("# baton: ignore[a] why", False), ("# c", False)]

    def test_comments_behind_a_fault_are_found(self) -> None:
        assert self.at("a: 1 # x\nb: c: d\ne: 1 # y\n") == [("# x", False), ("# y", False)]


FUZZ = st.text(alphabet="ab:-[]{}'\"|>&*!#%?,\n \t\r\\<~=0\x00\ufeff\u2028", max_size=60)
TOKENS = (
    """a:~|-~|~|~~|{{ x }}|{{- if y }}|{{ toYaml z . nindent 2 }}
|{{|}}|{% a %}|'|"|&x~|*x|<<:~|[|]|{|}|!!int~|{{/*~|~*/}}
|`|x|1|,~|---|...|# c|>-""".replace("\n", "")
    .replace("~", " ")
    .split("|")
)
PIECES = st.lists(
    st.sampled_from([*TOKENS, "\n", "\n  ", "\n    ", "\n\n", "\t", "\r\n", "|", "|+2"]), max_size=25
).map("".join)


@given(FUZZ | PIECES | st.text(st.characters(), max_size=30))
@example("!\u2028:")
@example("!\u2028|")
@example("\ufeff\ufeff\ufeffa: 1")
@example("%YAML 2.0\n---\na: 1\n")
@example("a: |9\n x\n")
@example("\ufeff")
@example("a: |\r  x\r")
@settings(max_examples=1500, deadline=None)
def test_any_text_gives_nodes_and_faults_with_places_in_the_file(text: str) -> None:
    source = Source("f", text)
    stream = tree.read(source)
    for fault in stream.faults:
        assert 0 <= fault.span.start <= fault.span.end <= len(text)
        assert fault.message
        assert "\n" not in fault.message
    for document in stream.documents:
        for node in tree.walk(document):
            assert 0 <= node.span.start <= node.span.end <= len(text)
            if isinstance(node, tree.Scalar):
                assert len(node.text.offsets) == len(node.text.value) + 1
                assert all(0 <= offset <= len(text) for offset in node.text.offsets)
    for comment in tree.comments(source):
        assert comment.span.written.startswith("#")


@given(FUZZ.filter(lambda text: "\x00" not in text and not text.startswith("\ufeff\ufeff")))
@settings(max_examples=700, deadline=None)
def test_what_pyyaml_reads_is_read_alike(text: str) -> None:
    try:
        expected = [_composed(node) for node in yaml.compose_all(text, Loader=yaml.CSafeLoader)]
    except (yaml.YAMLError, RecursionError, TypeError):
        return
    stream = read(text)
    assert not stream.faults
    found = [_shape(document) for document in stream.documents]
    assert [shape for shape in found if shape != ""] == [shape for shape in expected if shape != ""]


def _composed(node: yaml.Node | None) -> Any:
    """Scalars by text, mappings by their items in order: what both readers must agree on."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return node.value if node else ""
    if isinstance(node, yaml.SequenceNode):
        return [_composed(item) for item in node.value]
    return {
        key.value: _composed(value)
        for key, value in node.value
        if isinstance(key, yaml.ScalarNode) and key.value != "<<"
    }


def _shape(node: tree.Node) -> Any:
    if isinstance(node, tree.Scalar):
        return node.text.value
    if isinstance(node, tree.Sequence):
        return [_shape(item) for item in node.items]
    return {key: _shape(entry.value) for key, entry in node.entries.items() if key != "<<"}


@pytest.mark.parametrize(
    "text",
    [
        *("{{" * 20_000, "{{`" * 20_000, "{{/*" * 20_000, '{{"' * 20_000, "{% a" * 20_000, "{{x" * 20_000),
        *("a: " + " " * 50_000 + "x", "'" + " " * 50_000, "a: |9\n" + " " * 50_000 + "x", "a: |9\n" + " x\n" * 10_000),
        *("#" * 50_000, " #" * 30_000, "\\" * 50_000, 'a: "' + "\\" * 50_001, "&a " * 20_000, "- a: b: c\n" * 5000),
        *("{{ x }}\n" * 20_000, "a: {{ x }} {{ y }}\n" * 10_000, "{{ x }}" * 20_000, "a: [" * 20_000, "? " * 20_000),
    ],
    ids=lambda text: ascii(text[:8]),
)
def test_hostile_text_is_read_in_time(text: str) -> None:
    began = time.process_time()
    tree.comments(Source("f", text))
    assert time.process_time() - began < 5
