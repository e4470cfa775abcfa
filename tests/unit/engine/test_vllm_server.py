"""One vLLM server as its clients see it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import msgspec
import pytest
from fakes.deployment import CHAT, COMPLETIONS, chat, completion, eventually
from fakes.observed import MODEL, ObservedEngine

from baton.base.errors import WorkerError
from baton.base.reply import Reply, Request
from baton.engine.client import HttpClient
from baton.engine.errors import EngineTimeout, EngineUnreachable
from baton.engine.kv_transfer import checked_offer, decode_body, prefill_body
from baton.engine.stand_in.model import tokenize
from baton.engine.vllm import Identity, VllmServer, engine_request_ids
from baton.recipe.recipe import Role

LIMIT_S = 5.0


class Two:
    """A prefill and a decode engine, and how they are spoken to."""

    def __init__(self) -> None:
        self.client = HttpClient()
        self.engines = ObservedEngine("p", Role.PREFILL), ObservedEngine("d", Role.DECODE, dp_size=2)

    async def start(self) -> None:
        for engine in self.engines:
            await engine.start()
        self.prefill, self.decode = (
            VllmServer(self.client, e.worker(weights="w", attention_backend="CPU_MLA")) for e in self.engines
        )


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    two = Two()
    await two.start()
    yield two
    two.client.close()
    for engine in two.engines:
        await engine.stop()


async def ask(server: VllmServer, body: dict, dp_rank: int = 0, path: str = COMPLETIONS) -> dict:
    return await server.ask(path, body, request_id="r", dp_rank=dp_rank, timeout_s=LIMIT_S)


async def test_a_server_says_what_it_is(two: Two) -> None:
    assert await two.prefill.identity(LIMIT_S) == Identity(
        engine_version="0.32.0",
        model="/models/tiny-r1",
        weights="w",
        attention_backend="CPU_MLA",
        block_size="16",
        kv_cache_dtype="auto",
    )
    await two.prefill.healthy(LIMIT_S)
    assert (await two.decode.metrics(LIMIT_S)).counters(1).local_compute == 0
    assert (await two.prefill.models(LIMIT_S))[0]["id"] == MODEL
    assert await two.prefill.tokenize(MODEL, "héllo", LIMIT_S) == tokenize("héllo")


async def test_a_leg_carries_its_id_and_its_rank(two: Two) -> None:
    await ask(two.decode, completion(), dp_rank=1)
    leg = two.engines[1].legs[-1]
    assert leg.request_id == "r"
    assert leg.headers["x-data-parallel-rank"] == "1"
    assert (await two.decode.metrics(LIMIT_S)).counters(1).local_compute > 0
    assert (await two.decode.metrics(LIMIT_S)).counters(0).local_compute == 0


@pytest.mark.parametrize(("path", "body"), [(COMPLETIONS, completion()), (CHAT, chat())])
async def test_a_hand_off_between_two_servers_gives_what_one_gives(two: Two, path: str, body: dict) -> None:
    offer = checked_offer((await ask(two.prefill, prefill_body(body), path=path))["kv_transfer_params"])
    assert two.engines[0].held
    handed_off = await ask(two.decode, decode_body(body, offer), path=path)
    assert not two.engines[0].held
    assert handed_off["choices"] == (await ask(two.decode, body, path=path))["choices"]
    assert (await two.decode.metrics(LIMIT_S)).counters(0).external_kv_transfer > 0


async def test_a_release_frees_what_prefill_holds(two: Two) -> None:
    offer = checked_offer((await ask(two.prefill, prefill_body(completion())))["kv_transfer_params"])
    await two.decode.release(MODEL, offer, request_id="x", dp_rank=0, timeout_s=LIMIT_S)
    await eventually(lambda: not two.engines[0].held)
    assert two.engines[0].ranks[0].leases.num_late_notices == 0


async def test_a_release_that_is_served_instead_of_rejected_is_an_error(two: Two) -> None:
    server = two.engines[1]._server
    assert server is not None

    async def serve(_: Request, reply: Reply) -> None:
        reply.send(200, {}, b"{}")

    server.handler = serve
    offer = checked_offer((await ask(two.prefill, prefill_body(completion())))["kv_transfer_params"])
    with pytest.raises(WorkerError, match="instead of rejecting"):
        await two.decode.release(MODEL, offer, request_id="x", dp_rank=0, timeout_s=LIMIT_S)


@pytest.mark.parametrize(("path", "body"), [(COMPLETIONS, completion()), (CHAT, chat())])
async def test_a_running_request_is_aborted_by_the_engines_own_id(two: Two, path: str, body: dict) -> None:
    two.engines[0].set_faults(stall=True)
    asking = asyncio.create_task(two.prefill.ask(path, body, request_id="mine", dp_rank=0, timeout_s=LIMIT_S))
    await eventually(lambda: two.engines[0].running)
    assert await two.prefill.abort(engine_request_ids(path, "other"), LIMIT_S)
    assert not asking.done()
    assert await two.prefill.abort(engine_request_ids(path, "mine"), LIMIT_S)
    assert (await asking)["choices"][0]["finish_reason"] == "abort"


def test_the_engines_ids_are_the_clients_with_a_prefix_and_for_completions_an_index() -> None:
    assert engine_request_ids("/v1/completions", "a") == ["cmpl-a-0"]
    assert engine_request_ids("/v1/chat/completions", "a") == ["chatcmpl-a"]


async def test_a_server_without_the_abort_route_says_so(two: Two) -> None:
    two.engines[0].config = replace(two.engines[0].config, enable_scale_out=False)
    assert not await two.prefill.abort(["x"], LIMIT_S)


async def test_whatever_is_not_200_and_json_is_a_worker_error_that_names_the_worker(two: Two) -> None:
    engine, server = two.engines[0], two.prefill
    with pytest.raises(WorkerError, match="p answered 404"):
        await ask(server, completion() | {"model": "other"})
    engine.refuse(500, b"boom")
    with pytest.raises(WorkerError, match=r"p answered 500.*boom"):
        await ask(server, completion())
    engine.clear_faults()
    for raw in (b"nonsense", b"[]", b"[" * 100_000):
        engine.answer(raw)
        with pytest.raises(WorkerError, match="p POST"):
            await ask(server, completion())
    for text in ('{"data": []}', "[]", "x", "{}", '{"data": [1]}', '{"data": 1}'):
        engine.models_text = text
        with pytest.raises(WorkerError, match="p "):
            await server.models(LIMIT_S)


async def test_a_server_that_is_gone_is_unreachable_and_one_that_hangs_times_out(two: Two) -> None:
    two.engines[0].set_faults(hang_before_head=True)
    with pytest.raises(EngineTimeout):
        await two.prefill.ask(COMPLETIONS, completion(), request_id="r", dp_rank=0, timeout_s=0.05)
    await two.engines[0].stop()
    with pytest.raises(EngineUnreachable):
        await two.prefill.healthy(LIMIT_S)


def identity(**fields: str) -> Identity:
    base = dict.fromkeys(Identity.__slots__, "x")
    return Identity(**base | fields)


@pytest.mark.parametrize("field", Identity.__slots__)
def test_identities_differ_by_any_field_that_both_name(field: str) -> None:
    assert identity().difference(identity()) == ""
    assert identity().difference(identity(**{field: "y"})) == f"{field.replace('_', ' ')} 'x' and 'y'"
    assert identity().difference(identity(**{field: ""})) == ""
    assert identity(**{field: ""}).difference(identity()) == ""


async def test_a_posted_leg_is_sent_as_given(two: Two) -> None:
    raw = msgspec.json.encode(completion())
    deadline_s = asyncio.get_running_loop().time() + LIMIT_S
    response = await two.prefill.post(
        COMPLETIONS, raw, request_id="r", dp_rank=0, deadline_s=deadline_s, headers={"traceparent": "t"}
    )
    await response.read(1 << 20)
    assert two.engines[0].legs[-1].body == completion()
    assert two.engines[0].legs[-1].headers["traceparent"] == "t"
