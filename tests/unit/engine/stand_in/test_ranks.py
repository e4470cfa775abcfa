"""Hundreds of ranks in one process."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from unit.engine.stand_in.standing import INSTANT, PROMPT, answer_of, run, serving

from baton.engine.stand_in.model import tokenize

NUM_RANKS = 256


def test_256_ranks_of_one_process_serve_a_request_each() -> None:
    async def work() -> None:
        async with serving(replace(INSTANT, dp_size=NUM_RANKS, num_gpu_blocks=64)) as (server,):
            asked = [
                server.complete(f"{PROMPT} {rank}", headers={"x-data-parallel-rank": str(rank)})
                for rank in range(NUM_RANKS)
            ]
            answers = await asyncio.gather(*asked)
            assert [got.text for got in answers] == [
                bytes(answer_of(tokenize(f"{PROMPT} {rank}"), 8)).decode() for rank in range(NUM_RANKS)
            ]
            for rank in range(NUM_RANKS):
                assert server.stand_in.ranks[rank].pool.usage == 0
            text = (await server.send("GET", "/metrics")).body.decode()
            counted = [line for line in text.splitlines() if line.startswith("vllm:generation_tokens_total{")]
            assert len(counted) == NUM_RANKS
            assert all(line.endswith(" 8.0") for line in counted), "each has served its own request"

    run(work())


def test_a_request_that_names_no_rank_goes_where_there_is_least_to_do() -> None:
    async def work() -> None:
        async with serving(replace(INSTANT, dp_size=4)) as (server,):
            server.stand_in.set_faults(stall=True)
            asking = [asyncio.create_task(server.complete(f"{i}")) for i in range(8)]
            await asyncio.sleep(1)
            assert [rank.num_unfinished for rank in server.stand_in.ranks] == [2, 2, 2, 2]
            server.stand_in.clear_faults()
            await asyncio.gather(*asking)

    run(work())


def test_a_rank_that_is_not_here_is_refused_with_those_that_are() -> None:
    async def work() -> None:
        async with serving(replace(INSTANT, dp_size=4, dp_rank_start=8)) as (server,):
            got = await server.complete(headers={"x-data-parallel-rank": "3"})
            assert (got.status, got.json["error"]["message"]) == (400, "data_parallel_rank 3 is out of range [8, 12).")
            assert (await server.complete(headers={"x-data-parallel-rank": "11"})).status == 200

    run(work())


def test_tokens_that_came_while_a_stream_was_held_are_all_told() -> None:
    async def work() -> None:
        async with serving(INSTANT) as (server,):
            server.stand_in.set_faults(hang_after=3)
            asking = asyncio.create_task(server.complete(stream=True, return_token_ids=True))
            await asyncio.sleep(10)
            server.stand_in.clear_faults()
            choices = [event["choices"][0] for event in (await asking).events if event != "[DONE]"]
            ids = [i for choice in choices for i in choice["token_ids"] or []]
            assert ids == answer_of(tokenize(PROMPT), 8)
            assert "".join(choice["text"] for choice in choices) == bytes(ids).decode()
            assert [choice["finish_reason"] for choice in choices] == [None] * 7 + ["length"]

    run(work())
