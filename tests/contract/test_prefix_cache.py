"""The prefix cache: whole blocks of a prompt that was seen before are not computed again, and that is told.

The last token is always computed, for its logits: a prompt of whole blocks that is all there misses its last block.
"""

from __future__ import annotations

import pytest
from contract.engines import CHAT, COMPLETIONS, CachingEngine
from e2e.running import eventually


def cached(gqa: CachingEngine, prompt: list[int], **asked: object) -> int:
    """Tokens of a prompt that the engine says were in its cache."""
    usage = gqa.engine.ask(COMPLETIONS, prompt=prompt, max_tokens=1, **asked)["usage"]
    return int(usage["prompt_tokens_details"]["cached_tokens"])


def test_whole_blocks_of_a_known_prompt_are_cached(gqa: CachingEngine) -> None:
    size = gqa.engine.block_size
    prompt = gqa.engine.prompt(3 * size + 4)
    assert [cached(gqa, prompt) for _ in range(2)] == [0, 3 * size]


def test_a_known_beginning_is_cached_and_a_known_end_is_not(gqa: CachingEngine) -> None:
    size = gqa.engine.block_size
    prompt = gqa.engine.prompt(3 * size)
    cached(gqa, prompt)
    assert cached(gqa, prompt[: 2 * size] + gqa.engine.prompt(2 * size)) == 2 * size
    assert cached(gqa, gqa.engine.prompt(size) + prompt) == 0


def test_the_block_of_the_last_token_is_computed_again(gqa: CachingEngine) -> None:
    size = gqa.engine.block_size
    prompt = gqa.engine.prompt(3 * size)
    assert [cached(gqa, prompt) for _ in range(2)] == [0, 2 * size]


def test_a_part_of_a_block_is_not_cached(gqa: CachingEngine) -> None:
    prompt = gqa.engine.prompt(gqa.engine.block_size - 1)
    assert [cached(gqa, prompt) for _ in range(2)] == [0, 0]


def test_a_salt_keeps_prompts_apart(gqa: CachingEngine) -> None:
    size = gqa.engine.block_size
    prompt = gqa.engine.prompt(2 * size + 1)
    assert [cached(gqa, prompt, **salt) for salt in ({}, {"cache_salt": "a"}, {"cache_salt": "a"}, {})] == [
        0,
        0,
        2 * size,
        2 * size,
    ]


def test_generated_tokens_are_cached_too(gqa: CachingEngine) -> None:
    size = gqa.engine.block_size
    prompt = gqa.engine.prompt(size)
    answer = gqa.engine.ask(COMPLETIONS, prompt=prompt, max_tokens=size + 2, ignore_eos=True, return_token_ids=True)
    assert cached(gqa, prompt + answer["choices"][0]["token_ids"]) == 2 * size


def test_a_chat_tells_what_it_has_put_into_the_cache(gqa: CachingEngine) -> None:
    size = gqa.engine.block_size
    words = " ".join(str(token) for token in gqa.engine.prompt(3 * size))
    usages = [gqa.engine.ask(CHAT, messages=[{"role": "user", "content": words}], max_tokens=1)["usage"] for _ in "12"]
    blocks = usages[0]["prompt_tokens"] // size * size
    told = [
        (u["prompt_tokens_details"]["cached_tokens"], u["prompt_tokens_details"]["created_cache_tokens"])
        for u in usages
    ]
    assert told == [(0, blocks), (blocks, 0)]


@pytest.mark.parametrize("source", ["local_compute", "local_cache_hit"])
def test_the_metrics_tell_hits_and_queries_in_tokens(gqa: CachingEngine, source: str) -> None:
    size = gqa.engine.block_size
    prompt = gqa.engine.prompt(2 * size + 5)
    if source == "local_cache_hit":
        cached(gqa, prompt)
    hit = 2 * size if source == "local_cache_hit" else 0

    def read() -> list[float]:
        by_source = (
            gqa.engine.value("vllm:prompt_tokens_by_source_total", source=s)
            for s in ("local_compute", "local_cache_hit")
        )
        return [
            gqa.engine.value("vllm:prefix_cache_queries_total"),
            gqa.engine.value("vllm:prefix_cache_hits_total"),
            *by_source,
        ]

    before = read()
    cached(gqa, prompt)
    eventually(lambda: read()[0] - before[0] == len(prompt), "the query is counted", 5)
    assert [now - then for now, then in zip(read(), before, strict=True)] == [len(prompt), hit, len(prompt) - hit, hit]
