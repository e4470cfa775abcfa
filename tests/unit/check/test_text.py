"""Text that knows where it stands: positions, parts, joins and spans."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from baton.check.text import Source, Text


def test_positions_count_lines_and_columns_from_one() -> None:
    source = Source("f", "ab\r\n\ncd")
    assert [source.position(at) for at in (0, 1, 4, 5, 7)] == [(1, 1), (1, 2), (2, 1), (3, 1), (3, 3)]


def test_lines_come_without_their_ends_and_beyond_the_last_are_empty() -> None:
    source = Source("f", "ab\r\n\ncd")
    assert [source.line(number) for number in (0, 1, 2, 3, 4)] == ["", "ab", "", "cd", ""]


@given(st.text(alphabet="ab\n"), st.data())
def test_a_position_and_its_line_say_the_same_as_the_offset(text: str, data: st.DataObject) -> None:
    source = Source("f", text)
    at = data.draw(st.integers(0, len(text)))
    line, column = source.position(at)
    assert line == text[:at].count("\n") + 1
    assert source.line(line)[: column - 1] == text[:at].rpartition("\n")[2]


def test_a_span_prints_as_compilers_do_and_reaches_to_another() -> None:
    source = Source("f.yaml", "ab\ncd")
    span = source.span(3, 4)
    assert (str(span), span.line, span.column, span.written) == ("f.yaml:2:1", 2, 1, "c")
    assert source.span(0, 1).to(span).written == "ab\nc"


def test_the_whole_file_and_every_part_of_it_stand_where_they_are() -> None:
    text = Source("f", "vllm serve m").whole()
    assert text.is_exact
    part = text[5:10]
    assert (part.value, part.span().start, part.span().written, part.is_exact) == ("serve", 5, "serve", True)
    assert text[20:].value == text[5:2].value == ""


def test_the_span_of_an_escaped_character_is_all_of_the_escape() -> None:
    source = Source("f", r'"a\tb"')
    text = Text("a\tb", source, [1, 2, 4, 5])
    assert text.span(1, 2).written == r"\t"
    assert text.span().written == r"a\tb"
    assert not text.is_exact


def test_a_span_does_not_run_over_into_the_next_line() -> None:
    source = Source("f", "ab\n    cd\n")
    text = Text("ab\ncd\n", source, [0, 1, 2, 7, 8, 9, 10])
    assert text.span(0, 2).written == "ab"
    assert text.span(0, 3).written == "ab\n"
    assert text.span(3, 5).written == "cd"
    joined = Text("ab cd", source, [0, 1, 2, 7, 8, 9])
    assert joined.span(0, 2).written == "ab"
    assert joined.span(1, 4).written == "b\n    c"


def test_an_empty_span_stands_where_its_character_would() -> None:
    text = Source("f", "abc").whole()
    assert (text.span(1, 1).start, text.span(1, 1).end) == (1, 1)
    assert text.span(3).start == 3


def test_text_put_somewhere_stands_there_as_a_whole() -> None:
    source = Source("f", "x=$HOME y")
    text = Text.at("/root", source.span(2, 7))
    assert len(text.offsets) == len(text) + 1
    assert text.span().written == "$HOME"
    assert not text.is_exact


def test_parts_joined_keep_their_places() -> None:
    source = Source("f", "--a 'b c'")
    joined = Text.join([source.whole()[0:3], source.whole()[5:8]])
    assert (joined.value, list(joined.offsets)) == ("--ab c", [0, 1, 2, 5, 6, 7, 8])


def test_parts_of_two_files_stand_where_the_first_does() -> None:
    one, two = Source("f", "abc").whole(), Source("g", "xyz").whole()
    joined = Text.join([one[1:2], two])
    assert (joined.value, joined.source.name, joined.span().written) == ("bxyz", "f", "b")
