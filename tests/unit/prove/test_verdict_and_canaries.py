"""The parts of a proof that need no engine."""

import io
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from baton.prove.canaries import LONG_BLOCKS, canaries, shapes, text_canary
from baton.prove.report import print_verdict
from baton.prove.verdict import Check, Verdict


def check(name: str, ok: bool) -> Check:
    return Check(name=name, ok=ok, expected="1", found="2 [bold]things[/bold]")


def test_only_a_verdict_whose_every_check_holds_is_proven() -> None:
    assert Verdict(checks=(check("a", True), check("b", True))).proven
    assert not Verdict(checks=(check("a", True), check("b", False))).proven
    assert not Verdict(checks=()).proven


def test_the_reason_names_the_failing_checks_and_what_was_found() -> None:
    verdict = Verdict(checks=(check("a", True), check("b", False), check("c", False)))
    assert verdict.reason == "b: 2 [bold]things[/bold]; c: 2 [bold]things[/bold]"
    told = verdict.to_json()
    assert told["verdict"] == "NOT PROVEN"
    assert [c["ok"] for c in told["checks"]] == [True, False, False]
    assert Verdict(checks=(check("a", True),)).to_json()["verdict"] == "PROVEN"


def test_the_table_says_holds_or_fails_and_prints_brackets_as_they_are() -> None:
    out = io.StringIO()
    checks = (check("a", True), check("b", False))
    print_verdict(Console(file=out, width=200), Verdict(checks=checks))
    text = out.getvalue()
    for part in ("holds", "FAILS", "NOT PROVEN: b: 2 [bold]things[/bold]"):
        assert part in text
    out.truncate(0)
    print_verdict(Console(file=out, width=200), Verdict(checks=checks[:1]))
    assert "PROVEN" in out.getvalue()
    assert "NOT PROVEN" not in out.getvalue()


@given(
    block_size=st.sampled_from([8, 16, 32, 64, 128, 256]), max_model_len=st.integers(600, 200_000), seed=st.integers()
)
def test_sixteen_canaries_fit_the_model_and_lie_around_block_boundaries(
    block_size: int, max_model_len: int, seed: int
) -> None:
    random = Random(seed)
    texts = [[random.randrange(1000) for _ in range((LONG_BLOCKS + 1) * block_size)] for _ in range(2)]
    pairs = canaries(random, block_size, max_model_len, texts)
    flat = [canary for pair in pairs for canary in pair]
    assert len(flat) == 16
    assert len({canary.name for canary in flat}) == 16
    for a, b in pairs:
        assert a.is_chat == b.is_chat
        assert (a.osl, a.path) == (b.osl, b.path)
        if not a.is_chat:
            assert len(a.prompt) == len(b.prompt)
            assert 0 < len(a.prompt) <= max_model_len - a.osl
    lengths = {name: isl for name, isl, _ in shapes(block_size, max_model_len)}
    if max_model_len > 32 * block_size:
        assert lengths["a block less 1"] + 1 == lengths["exactly a block"] == lengths["a block and 1"] - 1 == block_size
        assert [len(a.prompt) for a, _ in pairs[:-1]] == list(lengths.values())


@given(seed=st.integers())
def test_no_canary_is_a_prefix_of_another(seed: int) -> None:
    random = Random(seed)
    texts = [list(text_canary(random, 200).encode()) for _ in range(2)]
    prompts = [c.prompt for pair in canaries(random, 16, 2048, texts)[:-1] for c in pair]
    for i, one in enumerate(prompts):
        for other in prompts[i + 1 :]:
            shorter = min(len(one), len(other))
            assert shorter <= 5 or one[:shorter] != other[:shorter]


def test_texts_begin_with_a_nonce_and_go_on_with_sums() -> None:
    text = text_canary(Random(1), 3)
    nonce, rest = text.split(". ", 1)
    assert len(nonce) == 16
    int(nonce, 16)
    assert rest.count("What is") == 3
    assert text != text_canary(Random(2), 3)
