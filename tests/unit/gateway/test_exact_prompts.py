"""Prompts by their tokens: what /tokenize is asked, what becomes of its answer, and what without one."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from baton.base.reply import Reply, Request
from baton.base.server import HttpServer
from baton.engine.client import HttpClient
from baton.engine.kv_events import BlockStored, stored_blocks
from baton.engine.vllm import VllmServer
from baton.gateway import openai
from baton.gateway.exact_prompts import ExactPrompts
from baton.gateway.openai import CHAT, COMPLETIONS, Call
from baton.policy.exact_prefixes import ExactPrefixes
from baton.policy.prompt import token_chain
from baton.policy.rank import RankId
from baton.recipe.recipe import Role
from baton.recipe.workers import Worker

SIZE = 4
TOKENS = list(range(50, 63))
RANK = RankId("p0", 0)


class Tokenizer:
    """Answers /tokenize as it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.status = 200
        self.answer: bytes = json.dumps({"count": 13, "max_model_len": 99, "tokens": TOKENS}).encode()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def handle(self, request: Request, reply: Reply) -> None:
        assert (request.method, request.path) == ("POST", "/tokenize")
        self.asked.append(json.loads(request.body))
        await self.go_on.wait()
        reply.send(self.status, {"content-type": "application/json"}, self.answer)


class Scene:
    """Two prefill workers with a tokenizer each."""

    def __init__(self) -> None:
        self.client = HttpClient()
        self.index = ExactPrefixes(1000)
        self.index.follow(RANK, guesses=True)
        self.tokenizers: list[Tokenizer] = []
        self.http: list[HttpServer] = []
        self.servers: list[VllmServer] = []

    async def start(self, count: int) -> None:
        for _ in range(count):
            tokenizer = Tokenizer()
            http = HttpServer(tokenizer.handle, openai.error_body)
            await http.start("127.0.0.1", 0)
            url = f"http://127.0.0.1:{http.address[1]}"
            self.tokenizers.append(tokenizer)
            self.http.append(http)
            self.servers.append(
                VllmServer(self.client, Worker(name=f"p{len(self.servers)}", role=Role.PREFILL, url=url))
            )

    def prompts(self, **how: float) -> ExactPrompts:
        return ExactPrompts(lambda: self.index.block_size, lambda: self.servers, **how)

    def told(self, **more: Any) -> None:
        """The engine has served these tokens."""
        event = BlockStored([1, 2, 3], None, TOKENS[: 3 * SIZE], SIZE, **more)
        blocks = stored_blocks(event)
        assert blocks is not None
        self.index.told_stored(RANK, blocks)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    await scene.start(1)
    yield scene
    for tokenizer in scene.tokenizers:
        tokenizer.go_on.set()
    scene.client.close()
    for http in scene.http:
        await http.stop(1.0)


def call(path: str, **body: Any) -> Call:
    return openai.read_call(path, {}, json.dumps({"model": "m", "max_tokens": 5, **body}).encode(), frozenset(["m"]))


def text(prompt: Any = "Once upon a time", **more: Any) -> Call:
    return call(COMPLETIONS, prompt=prompt, **more)


def chat(content: Any = "Hi!", **more: Any) -> Call:
    return call(CHAT, messages=[{"role": "user", "content": content}], **more)


async def test_a_prompt_is_known_by_the_tokens_that_the_engine_hashes(scene: Scene) -> None:
    scene.told()
    ((ask, num_bytes),) = await scene.prompts().asks(text(), "s")
    assert ask.chain == token_chain(b"", TOKENS, SIZE)
    assert (ask.num_prompt_tokens, ask.tokens_per_block, ask.max_output_tokens, ask.session) == (13, 4.0, 5, "s")
    assert num_bytes == len(b'"Once upon a time"')
    assert scene.index.matched(ask.chain) == {RANK: 3}
    assert scene.tokenizers[0].asked == [{"model": "m", "prompt": "Once upon a time"}]


async def test_all_that_a_template_is_given_is_given_to_tokenize(scene: Scene) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    await scene.prompts().asks(
        chat(
            tools=tools,
            add_generation_prompt=False,
            chat_template_kwargs={"a": 1},
            reasoning_effort="none",
            documents=[{"text": "x"}],
            temperature=0.5,
            chat_template=None,
        ),
        "",
    )
    assert scene.tokenizers[0].asked == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Hi!"}],
            "tools": tools,
            "add_generation_prompt": False,
            "chat_template_kwargs": {
                "a": 1,
                "enable_thinking": False,
                "reasoning_effort": "none",
                "documents": [{"text": "x"}],
            },
        }
    ]


async def test_a_salt_keeps_prompts_apart_as_it_does_in_the_engine(scene: Scene) -> None:
    scene.told(extra_keys=[["pepper"], None, None])
    ((plain, _),) = await scene.prompts().asks(text(), "")
    ((salted, _),) = await scene.prompts().asks(text(cache_salt="pepper"), "")
    assert scene.index.matched(plain.chain) == {}
    assert scene.index.matched(salted.chain) == {RANK: 3}


async def test_token_ids_need_no_engine(scene: Scene) -> None:
    scene.told()
    ((ask, _),) = await scene.prompts().asks(text(TOKENS), "")
    assert (ask.chain, ask.num_prompt_tokens) == (token_chain(b"", TOKENS, SIZE), 13)
    assert scene.tokenizers[0].asked == []


async def test_a_prompt_of_several_choices_is_tokenized_once(scene: Scene) -> None:
    scene.told()
    asks = await scene.prompts().asks(text(["one", "two"], n=3), "")
    assert [one["prompt"] for one in scene.tokenizers[0].asked] == ["one", "two"]
    assert len(asks) == 6
    assert {ask.num_prompt_tokens for ask, _ in asks} == {13}


async def test_before_the_first_event_lengths_are_exact_and_chains_empty(scene: Scene) -> None:
    ((ask, _),) = await scene.prompts().asks(text(), "")
    assert (ask.num_prompt_tokens, ask.chain) == (13, ())


@pytest.mark.parametrize(
    "asked",
    [
        text("x", echo=True),
        text("x", truncate_prompt_tokens=5),
        chat([{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]),
        text([1, 2**70]),
        text([1.5, 2]),
    ],
)
async def test_what_tokens_do_not_describe_is_routed_by_load(scene: Scene, asked: Call) -> None:
    scene.told()
    prompts = scene.prompts()
    ((ask, num_bytes),) = await prompts.asks(asked, "")
    assert ask.chain == ()
    assert ask.num_prompt_tokens == int(num_bytes * 0.25) + 1
    assert (scene.tokenizers[0].asked, prompts.num_failed) == ([], 0)


async def test_a_worker_that_fails_is_not_asked_for_a_while_and_its_request_is_routed_by_load(scene: Scene) -> None:
    await scene.start(1)
    scene.told()
    bad, good = scene.tokenizers
    bad.status = good.status = 500
    prompts = scene.prompts()
    for _ in range(4):
        ((ask, _),) = await prompts.asks(text(), "")
        assert (ask.chain, ask.num_prompt_tokens) == ((), 5)
    assert (len(bad.asked), len(good.asked), prompts.num_failed, prompts.num_tokenized) == (1, 1, 4, 0)


async def test_a_worker_that_failed_is_asked_again_later(scene: Scene) -> None:
    scene.told()
    (tokenizer,) = scene.tokenizers
    tokenizer.answer = b'{"tokens":"none"}'
    prompts = scene.prompts(timeout_s=0.0, pause_s=0.0)
    ((late, _),) = await prompts.asks(text(), "")
    assert late.chain == ()
    prompts = scene.prompts(timeout_s=5.0, pause_s=-5.0)
    ((garbled, _),) = await prompts.asks(text(), "")
    tokenizer.answer = json.dumps({"tokens": TOKENS}).encode()
    ((exact, _),) = await prompts.asks(text(), "")
    assert (garbled.chain, len(exact.chain)) == ((), 3)


async def test_a_worker_that_hangs_costs_no_more_than_the_limit(scene: Scene) -> None:
    scene.told()
    scene.tokenizers[0].go_on.clear()
    prompts = scene.prompts(timeout_s=0.05)
    ((ask, _),) = await prompts.asks(text(), "")
    assert (ask.chain, prompts.num_failed) == ((), 1)


async def test_a_refused_prompt_does_not_condemn_the_worker(scene: Scene) -> None:
    scene.told()
    (tokenizer,) = scene.tokenizers
    tokenizer.status = 400
    prompts = scene.prompts()
    ((ask, _),) = await prompts.asks(text(), "")
    assert ask.chain == ()
    tokenizer.status = 200
    ((ask, _),) = await prompts.asks(text(), "")
    assert len(ask.chain) == 3


async def test_without_a_prefill_worker_requests_are_routed_by_load(scene: Scene) -> None:
    scene.servers.clear()
    ((ask, _),) = await scene.prompts().asks(chat(), "")
    assert ask.chain == ()
