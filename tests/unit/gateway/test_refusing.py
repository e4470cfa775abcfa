"""What the gateway does not let through, each refusal before any engine has seen the request."""

import json

import pytest
from fakes.deployment import CHAT, COMPLETIONS, body_for, chat, completion, deployment

from baton.gateway.openai import read_call


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kv_transfer_params", {"do_remote_prefill": True, "remote_block_ids": [[1]]}),
        ("kv_transfer_params", None),
        ("ec_transfer_params", {}),
        ("vllm_xargs", {"kv_transfer_params": {"do_remote_prefill": True}}),
        ("vllm_xargs", {"ec_transfer_params": "{}"}),
    ],
)
async def test_a_body_that_names_other_requests_memory_is_refused(path: str, field: str, value: object) -> None:
    async with deployment(ready=False) as d:
        got = await d.http.post(path, body_for(path) | {field: value})
        assert got.status == 400
        assert got.error["type"] == "invalid_request_error"
        assert got.error["param"] in {"kv_transfer_params", "ec_transfer_params"}
        assert not any(leg.request_id[:5] != "baton" for engine in d.engines for leg in engine.legs)


@pytest.mark.parametrize("name", ["X-data-parallel-rank", "x-data-parallel-rank"])
async def test_a_header_that_chooses_a_rank_is_refused(name: str) -> None:
    async with deployment(ready=False) as d:
        got = await d.http.post(CHAT, chat(), {name: "1"})
        assert got.status == 400
        assert got.error["param"] == "x-data-parallel-rank"


@pytest.mark.parametrize("model", ["other", None, 1, ["tiny-r1"], {"a": 1}, ""])
async def test_a_model_that_is_not_served_is_a_404_that_says_what_is(model: object) -> None:
    async with deployment(ready=False) as d:
        got = await d.http.post(CHAT, chat() | {"model": model})
        assert got.status == 404
        assert got.error["param"] == "model"
        assert "tiny-r1" in got.error["message"]
        assert "deepseek-ai/DeepSeek-R1" in got.error["message"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b'"x"',
        b'{"model": "tiny-r1"',
        b"\xff\xfe",
        b'{"model":"\\ud800"}',
        b"[" * 100_000,
    ],
)
async def test_a_body_that_is_no_json_object_is_a_400(raw: bytes) -> None:
    async with deployment(ready=False) as d:
        got = await d.http.post(CHAT, raw)
        assert got.status == 400
        assert got.error["code"] == 400


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", "2"), ("n", 2.0), ("n", [2]), ("stream", "true"), ("stream", 1)],
)
async def test_a_value_that_vllm_would_convert_but_the_gateway_would_misread_is_refused(
    field: str, value: object
) -> None:
    async with deployment(ready=False) as d:
        got = await d.http.post(COMPLETIONS, completion() | {field: value})
        assert got.status == 400
        assert got.error["param"] == field


async def test_more_generations_than_allowed_are_refused() -> None:
    async with deployment(ready=False) as d:
        got = await d.http.post(COMPLETIONS, completion(["a"] * 43, n=3, temperature=1))
        assert got.status == 400
        assert "129" in got.error["message"]
        assert "128" in got.error["message"]


async def test_unknown_paths_are_404_and_wrong_methods_405() -> None:
    async with deployment(ready=False) as d:
        assert (await d.http.get("/v1/embeddings")).status == 404
        assert (await d.http.get(CHAT)).status == 405
        assert (await d.http.post("/metrics", {})).status == 405
        for path in (CHAT, "/nowhere"):
            assert "code" in (await d.http.get(path)).error


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_what_an_engine_finds_wrong_comes_back_word_for_word(path: str) -> None:
    async with deployment() as d:
        got = await d.http.post(path, body_for(path) | {"temperature": -0.5})
        assert got.status == 400
        assert got.error["type"] == "BadRequestError"
        alone = await d.native(path, body_for(path) | {"temperature": -0.5})
        assert json.loads(alone.raw) == got.json
        assert not d.decode.of_kind("decode")
        await d.idle()


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("temperature", [0, 0.0, -0.0, False, "0"])
async def test_several_greedy_choices_are_refused_as_an_engine_refuses_them(path: str, temperature: object) -> None:
    """vLLM 0.32.0, sampling_params.py; a generation at a time it would not see it."""
    async with deployment() as d:
        got = await d.http.post(path, body_for(path) | {"n": 3, "temperature": temperature})
        assert got.status == 400
        text = "n must be 1 when using greedy sampling, got 3."
        assert got.error == {"message": text, "type": "BadRequestError", "param": None, "code": 400}
        assert not any(engine.of_kind(kind) for engine in d.engines for kind in ("prefill", "decode"))


@pytest.mark.parametrize(
    "fields", [{"n": 1, "temperature": 0}, {"n": 2, "temperature": 1e-7}, {"n": 2}, {"n": 2, "temperature": None}]
)
async def test_what_is_not_greedy_or_one_choice_is_served(fields: dict[str, object]) -> None:
    """An engine raises a small temperature; where there is none, its own default holds."""
    async with deployment() as d:
        body = {name: value for name, value in completion().items() if name != "temperature"}
        got = await d.http.post(COMPLETIONS, body | fields)
        assert got.status == 200
        assert len(got.json["choices"]) == fields["n"]


@pytest.mark.parametrize("temperature", ["hot", [0], {}])
def test_a_temperature_that_is_no_number_is_left_to_the_engine(temperature: object) -> None:
    body = completion() | {"n": 2, "temperature": temperature, "model": "tiny-r1"}
    call = read_call(COMPLETIONS, {}, json.dumps(body).encode(), frozenset({"tiny-r1"}))
    assert len(call.singles) == 2


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_what_engines_tell_of_their_caches_is_not_for_clients(path: str) -> None:
    async with deployment(ready=False) as d:
        got = await d.http.post(path, body_for(path) | {"vllm_xargs": {"kv_cache_report_mode": "full"}})
        assert got.status == 400
        assert got.error["param"] == "kv_cache_report_mode"
