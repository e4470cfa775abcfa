"""No body whatsoever makes the gateway crash."""

import asyncio
import json
from typing import Any

from fakes.deployment import CHAT, COMPLETIONS, LIMIT_S, MODEL, Got, deployment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.integers(2**62, 2**66)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from([
    "prompt", "messages", "n", "stream", "stream_options", "seed", "max_tokens", "max_completion_tokens", "min_tokens",
    "temperature", "stop", "logprobs", "top_logprobs", "echo", "prompt_logprobs", "use_beam_search", "tools",
    "tool_choice",
    "vllm_xargs", "kv_transfer_params", "response_format", "model", "return_token_ids", "prompt_embeds",
])  # fmt: skip
SOUND: dict[str, Any] = {
    "model": st.just(MODEL),
    "prompt": st.sampled_from(["x", [1, 2], ["x", "y"], [[1], [2, 3]]]),
    "messages": st.just([{"role": "user", "content": "x"}]),
    "n": st.integers(1, 3),
    "stream": st.booleans(),
}
BODIES = st.one_of(
    VALUES,
    st.builds(
        lambda sound, rest: sound | rest, st.fixed_dictionaries(SOUND), st.dictionaries(FIELDS, VALUES, max_size=4)
    ),
    st.builds(
        lambda sound, rest: sound | rest,
        st.fixed_dictionaries({}, optional=SOUND),
        st.dictionaries(FIELDS, st.integers(0, 3) | st.booleans() | st.none(), max_size=4),
    ),
)


async def test_any_json_body_ends_in_an_answer_of_openais_shape() -> None:
    short = [{"max_model_len": 256}]  # a chat without a limit is answered up to it
    async with deployment(prefill=short, decode=short) as d:
        loop = asyncio.get_running_loop()

        @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
        @given(path=st.sampled_from([CHAT, COMPLETIONS]), body=BODIES)
        def check(path: str, body: Any) -> None:
            got = asyncio.run_coroutine_threadsafe(d.http.post(path, body), loop).result(LIMIT_S)
            right(got)

        await asyncio.to_thread(check)
        await d.idle(but_for_leases=True)


def right(got: Got) -> None:
    if got.status != 200:
        assert 400 <= got.status < 500, got
        assert got.error["code"] == got.status
    elif got.headers["content-type"].startswith("text/event-stream"):
        assert got.payloads[-1] == b"[DONE]" or "error" in json.loads(got.payloads[-1])
    else:
        assert isinstance(got.json["choices"], list)


async def test_any_bytes_end_in_an_answer_of_openais_shape() -> None:
    async with deployment() as d:
        loop = asyncio.get_running_loop()

        @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
        @given(raw=st.binary(max_size=200))
        def check(raw: bytes) -> None:
            got = asyncio.run_coroutine_threadsafe(d.http.post(CHAT, raw), loop).result(LIMIT_S)
            assert 400 <= got.status < 500
            assert got.error["code"] == got.status

        await asyncio.to_thread(check)
