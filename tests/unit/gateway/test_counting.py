"""What /metrics of the gateway says."""

import asyncio

from fakes.deployment import CHAT, COMPLETIONS, chat, completion, deployment, eventually
from prometheus_client.parser import text_string_to_metric_families


async def test_metrics_count_what_was_asked_and_how_it_ended() -> None:
    async with deployment() as d:
        await d.http.post(CHAT, chat())
        await d.http.post(CHAT, chat(stream=True))
        await d.http.post(COMPLETIONS, completion(["a", "b"], n=2, temperature=1))
        await d.http.post(COMPLETIONS, completion(echo=True))
        await d.http.post(CHAT, chat(temperature=-1.5))
        await d.http.post(CHAT, b"nonsense")
        d.decode.set_faults(cut_after=2)
        await d.http.post(CHAT, chat(stream=True))
        got = await d.http.get("/metrics")
        assert got.headers["content-type"].startswith("text/plain")
        families = {family.name: family for family in text_string_to_metric_families(got.raw.decode())}

        def values(name: str) -> dict[tuple[str, ...], float]:
            return {
                tuple(sample.labels.values()): sample.value
                for sample in families[name].samples
                if not sample.name.endswith(("_created", "_bucket", "_sum"))
            }

        assert values("baton_requests") == {
            (CHAT, "200"): 2,
            (COMPLETIONS, "200"): 2,
            (CHAT, "400"): 2,
            (CHAT, "502"): 1,
        }
        assert values("baton_generations") == {("completed",): 7, ("failed",): 2}
        assert values("baton_decode_alone") == {("echo needs the prompt's computation, not its KV",): 1}
        assert values("baton_pairs_verified") == {(): 1}
        assert values("baton_requests_in_flight") == {(): 0}
        assert values("baton_time_to_first_token_seconds") == {(): 2}
        assert values("baton_leg_seconds") == {("prefill",): 8, ("decode",): 8}


async def test_requests_in_flight_are_those_being_answered() -> None:
    async with deployment() as d:
        d.prefill.set_faults(stall=True)
        asking = asyncio.create_task(d.http.post(CHAT, chat()))
        await eventually(lambda: d.prefill.running)
        assert d.metric("baton_requests_in_flight") == 1
        d.prefill.clear_faults()
        await asking
        assert d.metric("baton_requests_in_flight") == 0


async def test_a_head_request_is_answered_without_a_body() -> None:
    async with deployment(ready=False) as d:
        for path in ("/health", "/metrics", "/v1/models"):
            reader, writer = await asyncio.open_connection(*d.url.removeprefix("http://").split(":"))
            writer.write(f"HEAD {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"\r\n\r\n")
