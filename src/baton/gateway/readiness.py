"""Keeps the pool true: asks every worker whether it is there, and every new pair to prove itself.

A pair is verified by one small hand-off, compared with the decode rank alone and with prefill's own first token, and
by the decode rank's counters: the prompt must have come from outside. This also pays for a pair's slow first hand-off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from random import Random

from baton.base.errors import WorkerError
from baton.engine.canary import Answer, Canary, difference, head
from baton.engine.errors import EngineUnreachable
from baton.engine.kv_transfer import JsonObject, checked_offer, decode_body, prefill_body
from baton.engine.vllm import VllmServer
from baton.gateway.pool import Pool
from baton.policy.rank import Pair, RankId

log = logging.getLogger("baton.gateway")

_COUNTER_READINGS = 20
_WORDS = ("river", "stone", "lamp", "seven", "north", "green", "table", "cloud", "paper", "train", "field", "clock")


class Readiness:
    """The gateway's background work; `run` until cancelled.

    poll_s           between two questions to one worker
    answer_s         how long a worker may take to answer one
    verify_s         how long one verification may take; the first hand-off of a pair on a CPU took up to 32 s
    max_retry_s      longest pause between two verifications of a pair that fails
    counters_s       how long an engine's counters may lag behind its answers
    """

    def __init__(
        self,
        pool: Pool,
        model: str,
        dtype: str,
        random: Random,
        *,
        poll_s: float = 1.0,
        answer_s: float = 5.0,
        verify_s: float = 120.0,
        max_retry_s: float = 30.0,
        counters_s: float = 5.0,
    ) -> None:
        self._pool = pool
        self._model = model
        self._dtype = dtype
        self._random = random
        self._poll_s = poll_s
        self._answer_s = answer_s
        self._verify_s = verify_s
        self._max_retry_s = max_retry_s
        self._counters_s = counters_s

    async def run(self) -> None:
        """Watch every worker and verify every pair, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for state in self._pool.workers.values():
                tasks.create_task(self._watch(state.server))
            for rank in self._pool.decode_ranks():
                tasks.create_task(self._verify_rank(rank))

    async def _watch(self, server: VllmServer) -> None:
        name, missed = server.worker.name, 0
        while True:
            try:
                await server.healthy(self._answer_s)
                missed = 0
                if self._pool.workers[name].identity is None:
                    self._pool.found(name, await server.identity(self._answer_s))
                    log.info("%s is there", name)
            except WorkerError as error:
                missed += 1
                refused = isinstance(error, EngineUnreachable)
                if refused or missed > 1 or self._pool.workers[name].identity is None:
                    if self._pool.workers[name].identity is not None:
                        log.warning("%s is gone: %s", name, error)
                    self._pool.lost(name, str(error))
            await asyncio.sleep(self._poll_s)

    async def _verify_rank(self, decode: RankId) -> None:
        """Verify the pairs of one decode rank, one at a time: new ones at once, failing ones again after a pause."""
        retry_s = self._poll_s
        while True:
            num_found = self._pool.num_found
            todo = [
                pair
                for pair, reason in self._pool.pairs.items()
                if pair.decode == decode and reason and all(self._pool.workers[r.worker].identity for r in pair)
            ]
            for pair in todo:
                await self._judge(pair)
            failed = any(self._pool.pairs[pair] for pair in todo)
            retry_s = min(2 * retry_s, self._max_retry_s) if failed else self._poll_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(retry_s if failed else None):
                    await self._pool.wait_found(num_found)

    async def _judge(self, pair: Pair) -> None:
        generations = self._pool.generations(pair)
        reason = self._pool.mismatch(pair)
        if not reason:
            try:
                async with asyncio.timeout(self._verify_s):
                    reason = await self._try(pair)
            except TimeoutError:
                reason = f"a hand-off took longer than {self._verify_s:.0f} s"
            except WorkerError as error:
                reason = str(error)
        (log.warning if reason else log.info)("pair %s: %s", pair, reason or "verified")
        self._pool.judge(pair, generations, reason)

    async def _try(self, pair: Pair) -> str:
        prefill, decode = (self._pool.server(rank) for rank in pair)
        words = " ".join(self._random.choice(_WORDS) for _ in range(24))
        canary = Canary(name="pair", prompt=f"{self._random.getrandbits(64):016x} {words}", osl=4)
        body, nonce = canary.body(self._model), f"baton-verify-{self._random.getrandbits(64):016x}"
        before = (await decode.metrics(self._answer_s)).counters(pair.decode.dp_rank)

        async def ask(server: VllmServer, rank: RankId, leg: JsonObject, step: str) -> JsonObject:
            return await server.ask(
                "/v1/completions", leg, request_id=f"{nonce}-{step}", dp_rank=rank.dp_rank, timeout_s=self._verify_s
            )

        offered = await ask(prefill, pair.prefill, {**prefill_body(body), "logprobs": 2}, "prefill")
        params = checked_offer(offered.get("kv_transfer_params"))
        handed_off = Answer.read(await ask(decode, pair.decode, decode_body(body, params), "decode"))
        alone = Answer.read(await ask(decode, pair.decode, body, "alone"))
        if reason := difference(Answer.read(offered), head(alone, 1), self._dtype):
            return f"prefill and decode compute different things: {reason}"
        if reason := difference(handed_off, alone, self._dtype):
            return f"the hand-off changed the answer: {reason}"
        return await self._received(decode, pair.decode, before.external_kv_transfer, alone.num_prompt_tokens)

    async def _received(self, decode: VllmServer, rank: RankId, before: int, num_prompt_tokens: int) -> str:
        """Wait until the decode rank's counters show the prompt as received; counters lag behind answers."""
        received = 0
        for _ in range(_COUNTER_READINGS):
            counters = (await decode.metrics(self._answer_s)).counters(rank.dp_rank)
            received = counters.external_kv_transfer - before
            if received >= num_prompt_tokens:
                return ""
            await asyncio.sleep(self._counters_s / _COUNTER_READINGS)
        return (
            f"decode received {received} of {num_prompt_tokens} prompt tokens as KV and computed the rest itself; "
            "has it a KV connector (--kv-transfer-config)?"
        )
