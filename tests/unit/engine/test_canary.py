"""When two answers to one canary are the same."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton.base.errors import WorkerError
from baton.engine.canary import Answer, Canary, difference, head


def answer(
    ids: tuple[int, ...], logprobs: tuple[float, ...] | None = None, margin: float = 1.0, prompt: int = 4
) -> Answer:
    given_logprobs = logprobs if logprobs is not None else (-0.5,) * len(ids)
    return Answer(num_prompt_tokens=prompt, token_ids=ids, logprobs=given_logprobs, margins=(margin,) * len(ids))


ANSWERS = st.lists(st.tuples(st.integers(0, 9), st.floats(-5, 0), st.floats(0, 3)), max_size=6).map(
    lambda rows: Answer(
        num_prompt_tokens=3,
        token_ids=tuple(row[0] for row in rows),
        logprobs=tuple(row[1] for row in rows),
        margins=tuple(row[2] for row in rows),
    )
)


@given(ANSWERS, st.sampled_from(["float32", "bfloat16", "float16"]))
def test_an_answer_equals_itself_in_every_format(a: Answer, dtype: str) -> None:
    assert difference(a, a, dtype) == ""


@given(ANSWERS, ANSWERS)
def test_in_float32_equal_means_equal_tokens(a: Answer, b: Answer) -> None:
    if difference(a, b, "float32") == "":
        assert a.token_ids == b.token_ids
        assert all(abs(x - y) <= 1e-3 for x, y in zip(a.logprobs, b.logprobs, strict=True))


@given(ANSWERS, ANSWERS)
def test_what_is_equal_in_float32_is_equal_in_bfloat16(a: Answer, b: Answer) -> None:
    if difference(a, b, "float32") == "":
        assert difference(a, b, "bfloat16") == ""


def test_in_float32_one_other_token_is_a_difference_however_near_the_tie() -> None:
    assert difference(answer((1, 2, 4)), answer((1, 2, 3), margin=0.0), "float32") == (
        "output token 2 is 4, the reference has 3"
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_16_bits_answers_may_part_only_where_the_best_two_nearly_tie(dtype: str) -> None:
    assert difference(answer((1, 9, 9)), answer((1, 2, 3), margin=0.49), dtype) == ""
    assert difference(answer((1, 9, 9)), answer((1, 2, 3), margin=0.51), dtype) != ""


def test_a_near_tie_is_judged_by_the_reference_and_not_by_the_answer() -> None:
    assert difference(answer((1, 9), margin=0.0), answer((1, 2), margin=2.0), "bfloat16") != ""


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-3), ("bfloat16", 0.25), ("float16", 0.25)])
def test_logprobs_must_be_within_the_formats_bound(dtype: str, bound: float) -> None:
    reference = answer((1, 2), (-1.0, -1.0))
    assert difference(answer((1, 2), (-1.0, -1.0 - bound * 0.9)), reference, dtype) == ""
    assert "log-probability of output token 1" in difference(
        answer((1, 2), (-1.0, -1.0 - bound * 1.1)), reference, dtype
    )


def test_after_answers_have_parted_at_a_near_tie_nothing_more_is_compared() -> None:
    assert difference(answer((9, 9), (-3.0, -9.0)), answer((1, 2), margin=0.1), "bfloat16") == ""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_answer_that_is_shorter_or_longer_is_different(dtype: str) -> None:
    assert difference(answer((1,)), answer((1, 2)), dtype) != ""
    assert difference(answer((1, 2)), answer((1,)), dtype) != ""
    assert difference(head(answer((1, 2)), 1), answer((1,)), dtype) == ""


def test_prompts_of_different_length_are_different() -> None:
    assert difference(answer((1,), prompt=4), answer((1,), prompt=5), "float32") == "prompts of 4 and 5 tokens"


def test_a_canary_is_greedy_of_exact_length_and_asks_for_ids_and_two_logprobs() -> None:
    text, chat = Canary(name="t", prompt="x", osl=3), Canary(name="c", prompt=[{"role": "user", "content": "x"}], osl=3)
    assert (text.path, chat.path) == ("/v1/completions", "/v1/chat/completions")
    assert Canary(name="i", prompt=[1, 2], osl=3).path == "/v1/completions"
    for canary in (text, chat):
        body = canary.body("m")
        assert {
            "model": "m",
            "max_tokens": 3,
            "temperature": 0.0,
            "ignore_eos": True,
            "return_token_ids": True,
        }.items() <= (body.items())
    assert text.body("m")["logprobs"] == 2
    assert (chat.body("m")["logprobs"], chat.body("m")["top_logprobs"]) == (True, 2)


TEXT: dict[str, Any] = {
    "choices": [
        {
            "token_ids": [7, 8],
            "logprobs": {"token_logprobs": [-0.1, -0.2], "top_logprobs": [{"a": -0.1, "b": -1.1}, {"c": -0.2}]},
        }
    ],
    "usage": {"prompt_tokens": 4},
}
CHAT: dict[str, Any] = {
    "choices": [
        {
            "token_ids": [7, 8],
            "logprobs": {
                "content": [
                    {"logprob": -0.1, "top_logprobs": [{"logprob": -0.1}, {"logprob": -1.1}]},
                    {"logprob": -0.2, "top_logprobs": [{"logprob": -0.2}]},
                ]
            },
        }
    ],
    "usage": {"prompt_tokens": 4},
}


@pytest.mark.parametrize("response", [TEXT, CHAT], ids=["completions", "chat"])
def test_an_answer_is_read_off_either_route(response: dict[str, Any]) -> None:
    read = Answer.read(response)
    assert (read.num_prompt_tokens, read.token_ids, read.logprobs) == (4, (7, 8), (-0.1, -0.2))
    assert read.margins == (pytest.approx(1.0), float("inf"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.pop("choices"),
        lambda r: r.update(choices=[]),
        lambda r: r.pop("usage"),
        lambda r: r["choices"][0].update(token_ids=None),
        lambda r: r["choices"][0].update(logprobs=None),
        lambda r: r["choices"][0]["logprobs"].update(token_logprobs=None),
        lambda r: r["choices"][0]["logprobs"].update(token_logprobs=[None, -0.2]),
        lambda r: r["choices"][0]["logprobs"].update(token_logprobs=[-0.1]),
        lambda r: r["choices"][0]["logprobs"].update(top_logprobs=[]),
        lambda r: r["choices"][0].update(token_ids=[7]),
    ],
)
def test_an_answer_without_ids_or_logprobs_of_every_token_is_an_error(spoil: Any) -> None:
    response = copy.deepcopy(TEXT)
    spoil(response)
    with pytest.raises(WorkerError, match="without token ids or log-probabilities"):
        Answer.read(response)
