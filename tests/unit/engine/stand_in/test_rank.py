"""One rank: what a step holds, what it costs, and that every sequence ends with the tokens it must have."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.engine.stand_in.standing import INSTANT, Asked, alone, answer_of, ask, now_s, run

from baton.engine.stand_in.config import StandInConfig, StepTime
from baton.engine.stand_in.faults import Faults
from baton.engine.stand_in.rank import Rank

STEPS = StepTime(base_s=1.0, per_prefill_token_s=0.01, per_running_s=0.1, per_context_token_s=0.001)
TIMED = replace(INSTANT, step_time=STEPS, enable_prefix_caching=False)
FIRST, SECOND, THIRD = ([10 + i] * 100 for i in range(3))


def times_of(config: StandInConfig, *requests: tuple[list[int], int], **asked: Any) -> list[list[float]]:
    """When each request's tokens came, all asked for at once."""

    async def work() -> list[list[float]]:
        rank, _ = alone(config)
        given = [ask(rank, prompt, max_tokens, **asked) for prompt, max_tokens in requests]
        for one in given:
            await one.over.wait()
        return [[round(s, 9) for s in one.tokens_s] for one in given]

    return run(work())


def test_a_step_takes_what_its_prefill_and_its_decodes_take() -> None:
    first, second = 1 + 0.01 * 100, 1 + 0.1 + 0.001 * 100
    assert times_of(TIMED, (FIRST, 3)) == [pytest.approx([first, first + second, first + 2 * second + 0.001])]


def test_what_is_asked_for_together_shares_steps() -> None:
    prefill, decode = 1 + 0.01 * 200, 1 + 2 * (0.1 + 0.001 * 100)
    assert times_of(TIMED, (FIRST, 2), (SECOND, 2)) == [pytest.approx([prefill, prefill + decode])] * 2


def test_a_long_prompt_is_computed_in_chunks_and_attention_to_what_is_before_costs_too() -> None:
    steps = replace(STEPS, per_prefill_context_token_s=0.0001)
    config = replace(TIMED, max_num_batched_tokens=40, step_time=steps)
    chunks = (1 + 0.4) + (1 + 0.4 + 0.0001 * 40 * 40) + (1 + 0.2 + 0.0001 * 20 * 80)
    assert times_of(config, (FIRST, 1)) == [pytest.approx([chunks])]


def test_what_decodes_goes_before_chunks_and_takes_of_the_budget() -> None:
    async def work() -> None:
        rank, _ = alone(replace(TIMED, max_num_batched_tokens=101))
        first = ask(rank, FIRST, 4)
        await asyncio.sleep(1.5)  # inside the first step, which takes 2 s
        second = ask(rank, SECOND, 1)
        await second.over.wait()
        # the second step has one token of the first and 100 of the second
        assert second.tokens_s == pytest.approx([2 + 1 + 0.1 + 0.001 * 100 + 0.01 * 100])
        assert first.tokens_s[1] == second.tokens_s[0]

    run(work())


def test_no_more_sequences_run_than_may() -> None:
    one = times_of(TIMED, (FIRST, 2))[0]
    assert times_of(replace(TIMED, max_num_seqs=1), (FIRST, 2), (SECOND, 2)) == [
        pytest.approx(one),
        pytest.approx([one[-1] + s for s in one]),
    ]


def test_nothing_overtakes_the_first_that_waits() -> None:
    async def work() -> None:
        rank, _ = alone(replace(TIMED, num_gpu_blocks=14, max_num_batched_tokens=1000))  # 13 blocks: 208 tokens
        large = [ask(rank, prompt, 3) for prompt in (FIRST, SECOND)]  # 7 blocks each: the second has no room
        small = ask(rank, [99], 1)
        await asyncio.sleep(2.5)
        assert [one.sequence in rank.waiting for one in (*large, small)] == [False, True, True]
        assert rank.pool.num_free == 6, "the small one would have room"
        for one in (*large, small):
            await one.over.wait()
        assert large[0].tokens_s[-1] < small.tokens_s[0] == large[1].tokens_s[0]

    run(work())


def test_a_step_begins_when_there_is_something_to_do_and_not_before() -> None:
    async def work() -> None:
        rank, _ = alone(TIMED)
        await asyncio.sleep(0.25)
        first = ask(rank, FIRST, 1)
        await first.over.wait()
        assert first.tokens_s == pytest.approx([2.25])
        await asyncio.sleep(0.25)
        second = ask(rank, FIRST, 1)
        await second.over.wait()
        assert second.tokens_s == pytest.approx([2.25 + 0.25 + 2])

    run(work())


def test_speed_and_a_slow_request_scale_every_step_they_are_in() -> None:
    plain = times_of(TIMED, (FIRST, 3))[0]
    assert times_of(replace(TIMED, speed=10), (FIRST, 3)) == [pytest.approx([s / 10 for s in plain])]
    assert times_of(TIMED, (FIRST, 3), faults=Faults(slow=3)) == [pytest.approx([s * 3 for s in plain])]


def test_one_slow_request_slows_those_beside_it_until_it_is_over() -> None:
    async def work() -> None:
        rank, _ = alone(TIMED)
        slow, other = ask(rank, FIRST, 1, faults=Faults(slow=3)), ask(rank, SECOND, 2)
        await other.over.wait()
        assert slow.tokens_s == pytest.approx([3 * (1 + 0.01 * 200)])
        assert other.tokens_s == pytest.approx([9, 9 + 1 + 0.1 + 0.001 * 100])

    run(work())


def test_a_cached_prompt_costs_only_what_is_not_cached() -> None:
    async def work() -> None:
        rank, metrics = alone(replace(TIMED, enable_prefix_caching=True))
        first = ask(rank, FIRST, 1)
        await first.over.wait()
        again = ask(rank, FIRST, 2)
        await again.over.wait()
        assert (again.sequence.num_cached, first.sequence.num_cached) == (96, 0)
        assert again.tokens_s[0] - first.tokens_s[0] == pytest.approx(1 + 0.01 * 4)
        assert again.output == answer_of(FIRST, 2)
        assert b'vllm:prefix_cache_hits_total{engine="0",model_name="tiny-r1"} 96.0' in metrics.text()

    run(work())


def test_the_newest_that_runs_gives_its_blocks_back_and_pays_for_its_tokens_again() -> None:
    async def work() -> None:
        steps = replace(STEPS, per_context_token_s=0.0)
        rank, metrics = alone(replace(TIMED, num_gpu_blocks=6, step_time=steps))  # 5 blocks: 80 tokens
        old, new = ask(rank, [1] * 30, 10), ask(rank, [2] * 30, 10)  # 2 blocks each, 3 each in the end
        await old.over.wait()
        assert b'vllm:num_preemptions_total{engine="0",model_name="tiny-r1"} 1.0' in metrics.text()
        await new.over.wait()
        assert (old.output, new.output) == (answer_of([1] * 30, 10), answer_of([2] * 30, 10))
        both, one = 1 + 0.2, 1 + 0.1
        assert old.tokens_s == pytest.approx([1.6 + both * min(i, 2) + one * max(0, i - 2) for i in range(10)])
        # new has 3 tokens then; it starts anew when old is over, and its 33 tokens are computed like a prompt
        again = old.tokens_s[-1] + 1 + 0.01 * 33
        assert new.tokens_s[3] == pytest.approx(again)
        assert new.tokens_s[4:] == pytest.approx([again + one * (i + 1) for i in range(6)])
        assert rank.pool.num_free == 5

    run(work())


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=8),
    st.integers(8, 30),
    st.integers(1, 4),
    st.integers(1, 64),
    st.booleans(),
    st.data(),
)
def test_every_sequence_ends_with_the_right_tokens_however_it_is_scheduled(
    requests: list[tuple[int, int, int]], num_blocks: int, max_num_seqs: int, budget: int, caching: bool, data: Any
) -> None:
    config = replace(
        TIMED, block_size=4, num_gpu_blocks=num_blocks + 1, max_num_seqs=max_num_seqs, max_num_batched_tokens=budget,
        enable_prefix_caching=caching,
    )  # fmt: skip
    room = 4 * num_blocks
    requests = [(kind, prompt, answer) for kind, prompt, answer in requests if prompt + answer <= room] or [(0, 1, 1)]
    gaps_s = [data.draw(st.sampled_from((0.0, 1.7, 9.0)), label="gap") for _ in requests]

    async def work() -> None:
        rank, _ = alone(config)
        asked = []
        for (kind, prompt, answer), gap_s in zip(requests, gaps_s, strict=True):
            await asyncio.sleep(gap_s)
            asked.append((ask(rank, [kind] * prompt, answer), kind, prompt, answer))
            check(rank)
        for one, kind, prompt, answer in asked:
            await one.over.wait()
            assert one.output == answer_of([kind] * prompt, answer, block_size=4)
            assert str(one.sequence.finish) == "length"
        assert (rank.pool.num_free, rank.num_unfinished) == (num_blocks, 0)

    def check(rank: Rank) -> None:
        assert len(rank.running) <= max_num_seqs
        held = {block for one in rank.running for block in one.blocks}
        assert rank.pool.num_free == num_blocks - len(held)

    run(work())


def test_an_aborted_sequence_gives_everything_back_wherever_it_is() -> None:
    async def work() -> None:
        rank, _ = alone(replace(TIMED, max_num_seqs=1))
        running, waiting, last = (ask(rank, prompt, 50) for prompt in (FIRST, SECOND, THIRD))
        await asyncio.sleep(2.5)
        rank.abort(waiting.sequence)
        rank.abort(running.sequence)
        rank.abort(running.sequence)  # a second time changes nothing
        assert [str(one.sequence.finish) for one in (running, waiting, last)] == ["abort", "abort", "None"]
        assert (len(running.output), waiting.output) == (1, [])
        await last.over.wait()
        assert last.output == answer_of(THIRD, 50)
        assert rank.pool.usage == 0
        assert now_s() > 2.5

    run(work())


def test_a_crash_fails_what_is_here_once() -> None:
    async def work() -> tuple[list[Asked], bytes]:
        rank, metrics = alone(replace(TIMED, max_num_seqs=1))
        asked = [ask(rank, prompt, 50) for prompt in (FIRST, SECOND)]
        await asyncio.sleep(2.5)
        rank.crash("told to")
        await asyncio.sleep(100)
        return asked, metrics.text()

    asked, text = run(work())
    assert [(str(one.sequence.finish), len(one.output)) for one in asked] == [("error", 1), ("error", 0)]
    assert b'vllm:request_success_total{engine="0",finished_reason="error",model_name="tiny-r1"} 2.0' in text
