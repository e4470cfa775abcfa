"""The proof: is this deployment really disaggregated, and are its tokens right?

    1 every pair of ranks has completed a verified hand-off, by the gateway's own account
    2 the engines are idle, so that their counters are the proof's alone
    3 sixteen canaries through the gateway, two of equal length at a time
    4 the engines' counters: prefill computed every prompt, decode received every prompt, the bytes are exact
    5 a hand-off that cannot succeed is answered with an error, never with recomputed tokens
    6 the same canaries through decode alone, and their first token through prefill alone: all answers equal

Counters are read from the engines, never from the gateway: a gateway cannot prove itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from math import ceil
from random import Random

from baton.base.errors import WorkerError
from baton.engine.canary import LOGPROB_BOUND, Answer, Canary, difference, head
from baton.engine.client import HttpClient
from baton.engine.kv_layout import kv_block_bytes, read_config
from baton.engine.kv_transfer import JsonObject, checked_offer, decode_body, prefill_body
from baton.engine.metrics import RankCounters
from baton.gateway.pool import UNVERIFIED
from baton.prove.canaries import LONG_BLOCKS, canaries, text_canary
from baton.prove.subject import Patience, Subject
from baton.prove.verdict import Check, Verdict
from baton.recipe.recipe import Role
from baton.recipe.workers import WorkersFile


async def prove_deployment(
    workers: WorkersFile, gateway_url: str, *, random: Random, patience: Patience | None = None
) -> Verdict:
    """Prove a deployment that serves at `gateway_url`; a check that fails is a verdict, not an error.

    Raises   ConfigError when the checkpoint's config cannot be read; WorkerError when an engine or the gateway is gone
    """
    client = HttpClient(connect_timeout_s=5.0)
    try:
        subject = Subject(workers, gateway_url, client, random, patience or Patience())
        checks = [await _pairs(subject)]
        if checks[-1].ok:
            checks.append(await _idle(subject))
        if checks[-1].ok:
            pairs = await _canaries(subject, random)
            before = await _flushed_counters(subject)
            try:
                answers = await _through_gateway(subject, pairs)
            except WorkerError as error:
                checks.append(_check("the gateway answers canaries", False, "200", str(error)))
            else:
                checks += await _count(subject, before, list(answers.values()))
                checks.append(await _failure_shows(subject, random))
                checks += await _compare(subject, pairs, answers)
        return Verdict(checks=tuple(checks))
    finally:
        client.close()


def _check(name: str, ok: bool, expected: str, found: str) -> Check:
    return Check(name=name, ok=ok, expected=expected, found=found)


async def _pairs(subject: Subject) -> Check:
    def settled(state: JsonObject) -> bool:
        judged = all(pair["verified"] or pair["reason"] != UNVERIFIED for pair in state["pairs"])
        return judged and all(worker["state"] != "unreachable" for worker in state["workers"])

    state = await subject.poll(subject.ready_state, settled, subject.patience.ready_s)
    pairs = state["pairs"]
    failing = [f"{pair['prefill']}->{pair['decode']}: {pair['reason']}" for pair in pairs if not pair["verified"]]
    found = "; ".join([f"{len(pairs) - len(failing)} of {len(pairs)}", *failing])
    return _check("pairs of ranks that hand off", not failing, f"{len(pairs)} of {len(pairs)}", found)


async def _idle(subject: Subject) -> Check:
    busy = await subject.poll(subject.unfinished, lambda n: n == 0, subject.patience.counters_s)
    found = "0 requests" if busy == 0 else f"{busy} requests of others; prove an idle deployment"
    return _check("the engines are idle", busy == 0, "0 requests", found)


async def _canaries(subject: Subject, random: Random) -> list[tuple[Canary, Canary]]:
    block_size, max_model_len, _ = await subject.limits()
    texts = [await _nonced_tokens(subject, random, (LONG_BLOCKS + 1) * block_size) for _ in range(2)]
    return canaries(random, block_size, max_model_len, texts)


async def _nonced_tokens(subject: Subject, random: Random, num_tokens: int) -> list[int]:
    """Token ids of a fresh text of at least `num_tokens` tokens."""
    num_sums = 16
    while len(tokens := await subject.tokenize(text_canary(random, num_sums))) < num_tokens:
        num_sums *= 2
    return tokens


async def _flushed_counters(subject: Subject) -> dict[Role, RankCounters]:
    """Counters before the canaries; a small request first makes each rank publish what it still holds back."""
    nudge = Canary(name="nudge", prompt=[1], osl=1)
    for ranks in subject.ranks.values():
        for rank in ranks:
            await subject.ask(rank, nudge.path, nudge.body(subject.model))
    last: list[dict[Role, RankCounters]] = []

    async def read() -> dict[Role, RankCounters]:
        last.append(await subject.counters())
        return last[-1]

    return await subject.poll(read, lambda now: now in last[:-1], subject.patience.counters_s)


async def _through_gateway(subject: Subject, pairs: Sequence[tuple[Canary, Canary]]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for pair in pairs:
        both = await asyncio.gather(*(subject.through_gateway(canary) for canary in pair))
        answers.update(zip((canary.name for canary in pair), both, strict=True))
    return answers


async def _count(subject: Subject, before: dict[Role, RankCounters], answers: list[Answer]) -> list[Check]:
    block_size, _, kv_dtype = await subject.limits()
    block_bytes = kv_block_bytes(read_config(await subject.checkpoint()), block_size, kv_dtype)
    prompts = sum(answer.num_prompt_tokens for answer in answers)
    blocks = sum(ceil(answer.num_prompt_tokens / block_size) for answer in answers)

    async def since() -> dict[Role, RankCounters]:
        return {role: counters - before[role] for role, counters in (await subject.counters()).items()}

    def all_here(moved: dict[Role, RankCounters]) -> bool:
        prefill, decode = moved[Role.PREFILL], moved[Role.DECODE]
        reported = min(prefill.local_compute, decode.external_kv_transfer) >= prompts
        return reported and decode.kv_transferred_bytes >= blocks * block_bytes

    moved = await subject.poll(since, all_here, subject.patience.counters_s)
    prefill, decode, both = moved[Role.PREFILL], moved[Role.DECODE], moved[Role.PREFILL] + moved[Role.DECODE]

    def equal(name: str, expected: int, found: int, unit: str, how: str = "") -> Check:
        shown = f"{found:,} of {expected:,} {unit}{how}" if expected else f"{found:,} {unit}"
        return _check(name, expected == found, f"{expected:,} {unit}", shown)

    expired = both.expired_requests + both.notifications_after_expiry
    return [
        equal("prompt tokens prefill computed", prompts, prefill.local_compute, "tokens"),
        equal("prompt tokens decode received", prompts, decode.external_kv_transfer, "tokens"),
        equal("prompt tokens decode computed", 0, decode.local_compute + decode.local_cache_hit, "tokens"),
        equal(
            "KV moved",
            blocks * block_bytes,
            decode.kv_transferred_bytes,
            "bytes",
            f", {blocks} blocks",
        ),
        equal("KV transfers that failed", 0, both.failed_transfers + both.failed_notifications, "transfers"),
        equal("KV leases that expired", 0, expired, "leases"),
    ]


async def _failure_shows(subject: Subject, random: Random) -> Check:
    """Send decode to fetch KV from an engine that does not exist."""
    prefill, decode = subject.ranks[Role.PREFILL][0], subject.ranks[Role.DECODE][0]
    canary = Canary(name="no such engine", prompt=text_canary(random, 4), osl=2)
    body = canary.body(subject.model)
    offered = await subject.ask(prefill, canary.path, prefill_body(body))
    params = checked_offer(offered.get("kv_transfer_params"))
    lost = {**params, "remote_engine_id": f"{random.getrandbits(128):032x}"}
    try:
        answer = await subject.ask(decode, canary.path, decode_body(body, lost))
    except WorkerError:
        found = "an error"
    else:
        tokens = Answer.read(answer).token_ids
        found = f"200 with tokens {tokens}; start decode with kv_load_failure_policy fail"
    await subject.release(decode, params)
    return _check("KV that cannot be fetched", found == "an error", "an error", found)


async def _compare(subject: Subject, pairs: Sequence[tuple[Canary, Canary]], answers: dict[str, Answer]) -> list[Check]:
    decodes, prefills = subject.ranks[Role.DECODE], subject.ranks[Role.PREFILL]
    flat, wrong, differ = [canary for pair in pairs for canary in pair], [], []
    largest = largest_first = 0.0
    for i, canary in enumerate(flat):
        body, got = canary.body(subject.model), answers[canary.name]
        alone = Answer.read(await subject.ask(decodes[i % len(decodes)], canary.path, body))
        first = Answer.read(await subject.ask(prefills[i % len(prefills)], canary.path, {**body, "max_tokens": 1}))
        if reason := difference(got, alone, subject.dtype):
            wrong.append(f"{canary.name}: {reason}")
        else:
            largest = max(largest, _largest(got, alone))
        if reason := difference(first, head(alone, 1), subject.dtype):
            differ.append(f"{canary.name}: {reason}")
        else:
            largest_first = max(largest_first, _largest(first, head(alone, 1)))
    expected = f"{len(flat)} of {len(flat)}, within {LOGPROB_BOUND[subject.dtype]:g}"
    return [
        _check("answers equal to decode alone", not wrong, expected, _found(len(flat), wrong, largest)),
        _check("first tokens equal to prefill's", not differ, expected, _found(len(flat), differ, largest_first)),
    ]


def _found(num_canaries: int, reasons: list[str], largest: float) -> str:
    return "; ".join([f"{num_canaries - len(reasons)} of {num_canaries}, within {largest:.1e}", *reasons])


def _largest(got: Answer, reference: Answer) -> float:
    return max(abs(a - b) for a, b in zip(got.logprobs, reference.logprobs, strict=True))
