"""API keys, limits, classes and the queue, as clients of the whole gateway see them."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from fakes.deployment import CHAT, COMPLETIONS, Deployment, completion, deployment, eventually

from baton.base.errors import ConfigError, RequestError
from baton.gateway.app import Gateway
from baton.gateway.keys import ANYBODY, Keys
from baton.recipe.api_keys import key_sha256

CLASSES = ("interactive", "standard", "batch")


def written(path: Path, **keys: str) -> Path:
    """A keys file: the fields of each key, which is its own name in capitals."""
    lines = [
        f'  - {{name: {name}, sha256: "{key_sha256(name.upper())}"{", " if more else ""}{more}}}'
        for name, more in keys.items()
    ]
    path.write_text("keys:\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", **more}


@pytest.fixture
def with_keys(tmp_path: Path) -> Callable[..., contextlib.AbstractAsyncContextManager[Deployment]]:
    @contextlib.asynccontextmanager
    async def start(wait_s: list[float] | None = None, **keys: str) -> AsyncIterator[Deployment]:
        def alter(gateway: Gateway) -> None:
            if keys:
                gateway.door.keys = Keys(written(tmp_path / "keys.yaml", **keys), CLASSES, 30.0, monotonic())
            if wait_s is not None:
                gateway.door.queue._predicted_wait_s = lambda _: wait_s[0]

        async with deployment(alter=alter) as found:
            yield found

    return start


def opened(found: Deployment, wait_s: list[float]) -> None:
    wait_s[0] = 0.0
    found.gateway.door.queue.wake()


def num_waiting(found: Deployment) -> int:
    return sum(found.gateway.door.queue.lengths().values())


Start = Callable[..., contextlib.AbstractAsyncContextManager[Deployment]]


async def test_without_a_file_anybody_may_ask_with_any_key_or_none(with_keys: Start) -> None:
    async with with_keys() as found:
        for headers in ({}, bearer("whatever")):
            assert (await found.http.post(COMPLETIONS, completion(), headers)).status == 200
        assert (await found.http.get("/debug/routes")).status == 200


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("headers", "said"),
    [({}, "didn't provide"), ({"authorization": "Basic A"}, "didn't provide"), (bearer("B"), "unknown")],
    ids=["none", "another scheme", "unknown"],
)
async def test_a_request_without_a_known_key_is_a_401(
    with_keys: Start, path: str, headers: dict[str, str], said: str
) -> None:
    async with with_keys(a="") as found:
        refused = await found.http.post(path, completion(), headers)
        assert refused.status == 401
        assert refused.error["type"] == "authentication_error"
        assert said in refused.error["message"]
        assert not found.prefill.of_kind("prefill")


async def test_a_key_serves_and_is_needed_only_for_what_tells_of_requests(with_keys: Start) -> None:
    async with with_keys(a="") as found:
        assert (await found.http.post(COMPLETIONS, completion(), bearer("A"))).status == 200
        open_to_all = {
            path: (await found.http.get(path)).status for path in ("/health", "/ready", "/metrics", "/v1/models")
        }
        assert set(open_to_all.values()) == {200}
        assert (await found.http.get("/debug/routes")).status == 401


async def test_a_key_over_its_rate_is_told_when_to_come_again_and_others_are_not_touched(with_keys: Start) -> None:
    async with with_keys(a="requests_per_s: 0.01, requests_burst: 2", b="") as found:
        answers = [await found.http.post(COMPLETIONS, completion(), bearer("A")) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].error["type"] == "rate_limit_exceeded"
        assert 90 <= int(answers[2].headers["retry-after"]) <= 101
        assert (await found.http.post(COMPLETIONS, completion(), bearer("B"))).status == 200
        assert found.metric("baton_sheds_total", **{"reason": "rate_limited", "class": "standard"}) == 1
        assert found.outcomes()["shed"] == 1


async def test_a_request_of_several_generations_is_one_request(with_keys: Start) -> None:
    async with with_keys(a="requests_per_s: 0.01, requests_burst: 1") as found:
        assert (await found.http.post(COMPLETIONS, completion(n=3, temperature=1), bearer("A"))).status == 200
        assert (await found.http.post(COMPLETIONS, completion(n=3, temperature=1), bearer("A"))).status == 429


async def test_tokens_are_charged_by_what_may_come_and_kept_by_what_did(with_keys: Start) -> None:
    async with with_keys(a="tokens_per_s: 0.001, tokens_burst: 200") as found:
        ends = completion(max_tokens=150, stop=["a", "e", "i", "o", "u", "t", "n", "s"])
        for _ in range(3):  # two would not fit if what was not used was lost
            assert (await found.http.post(COMPLETIONS, ends, bearer("A"))).status == 200
        first, second = [
            await found.http.post(COMPLETIONS, completion(max_tokens=120, ignore_eos=True), bearer("A")) for _ in "12"
        ]
        assert (first.status, second.status) == (200, 429), "what was used is gone"


@pytest.mark.parametrize("fields", [{"stream": True}, {"n": 2, "temperature": 1}, {}], ids=["stream", "split", "whole"])
async def test_a_request_waits_while_the_engines_have_enough_and_its_ledger_says_how_long(
    with_keys: Start, fields: dict[str, Any]
) -> None:
    wait_s = [9.0]
    async with with_keys(wait_s) as found:
        asked = asyncio.create_task(found.http.post(COMPLETIONS, completion(**fields)))
        await eventually(lambda: num_waiting(found) == 1)
        assert not found.prefill.of_kind("prefill")
        came_s = monotonic()
        await asyncio.sleep(0.02)
        opened(found, wait_s)
        answer = await asked
        assert answer.status == 200
        parts = {
            name: float(dur)
            for name, _, dur in (part.partition(";dur=") for part in answer.headers["server-timing"].split(", "))
        }
        assert parts["queue"] >= 20
        assert parts["queue"] / 1000 <= monotonic() - came_s + 1
        assert sum(parts.values()) - parts["total"] == pytest.approx(parts["total"], abs=2e-3)
        assert found.metric("baton_request_queue_time_seconds_count", **{"class": "standard"}) == 1


async def test_the_highest_class_that_waits_goes_first_and_a_key_may_ask_for_less(with_keys: Start) -> None:
    wait_s = [9.0]
    async with with_keys(wait_s, a="priority: interactive", b="priority: batch") as found:
        asked = []
        for key, text in (
            (bearer("B"), "batch"),
            (bearer("A", **{"x-baton-priority": "batch"}), "less"),
            (bearer("A"), "more"),
        ):
            before = num_waiting(found)
            asked.append(asyncio.create_task(found.http.post(COMPLETIONS, completion(text), key)))
            await eventually(lambda before=before: num_waiting(found) == before + 1)
        assert found.gateway.door.queue.lengths() == {"interactive": 1, "standard": 0, "batch": 2}
        opened(found, wait_s)
        assert {answer.status for answer in await asyncio.gather(*asked)} == {200}
        assert found.prefill.of_kind("prefill")[0].body["prompt"] == "more"


async def test_a_class_that_is_not_there_is_refused(with_keys: Start) -> None:
    async with with_keys() as found:
        refused = await found.http.post(COMPLETIONS, completion(), {"x-baton-priority": "urgent"})
        assert refused.status == 400
        assert "'urgent'; allowed: interactive, standard, batch" in refused.error["message"]


async def test_a_request_that_cannot_start_in_time_is_turned_away_at_once(with_keys: Start) -> None:
    async with with_keys([9.0], a="ttft_deadline_s: 2.0") as found:
        refused = await found.http.post(COMPLETIONS, completion(), bearer("A"))
        assert refused.status == 503
        assert refused.headers["retry-after"] == "7"
        assert "would not start in the 2 s" in refused.error["message"]
        assert found.metric("baton_sheds_total", **{"reason": "too_late", "class": "standard"}) == 1
        assert not found.prefill.of_kind("prefill")


async def test_a_client_that_leaves_the_queue_leaves_nothing(with_keys: Start) -> None:
    wait_s = [9.0]
    async with with_keys(wait_s, a="tokens_per_s: 0.001, tokens_burst: 60") as found:
        asked = asyncio.create_task(found.http.post(COMPLETIONS, completion(max_tokens=30), bearer("A")))
        await eventually(lambda: num_waiting(found) == 1)
        asked.cancel()
        await eventually(lambda: num_waiting(found) == 0)
        opened(found, wait_s)
        assert (await found.http.post(COMPLETIONS, completion(max_tokens=30), bearer("A"))).status == 200
        await found.idle()


async def test_who_waits_is_told_when_the_gateway_stops(with_keys: Start) -> None:
    async with with_keys([9.0]) as found:
        asked = asyncio.create_task(found.http.post(COMPLETIONS, completion()))
        await eventually(lambda: num_waiting(found) == 1)
        found.gateway.door.queue.close()
        assert (await asked).status == 503
        assert "stopping" in (await asked).error["message"]


def test_keys_are_read_again_and_what_is_left_of_unchanged_ones_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = written(tmp_path / "keys.yaml", a="requests_per_s: 0.01, requests_burst: 1", b="")
    keys = Keys(path, CLASSES, 30.0, 0.0)
    a = key_sha256("A")
    assert keys.tenant(a).charge(1, 0.0) == 0
    path.write_text("keys: [", encoding="utf-8")
    keys.reload(1.0)
    assert "API keys stay as they were" in caplog.text
    assert keys.of(bearer("B")) == key_sha256("B")
    written(path, a="requests_per_s: 0.01, requests_burst: 1", c="")
    keys.reload(2.0)
    assert keys.tenant(a).charge(1, 2.0) > 0, "its one request is gone still"
    assert keys.of(bearer("C"))
    with pytest.raises(RequestError, match="unknown"):
        keys.of(bearer("B"))
    with pytest.raises(RequestError, match="not valid any more"):
        keys.tenant(key_sha256("B"))
    keys.settle(key_sha256("B"), 5, 5, 3.0)  # it was taken away while its request ran


def test_a_file_that_cannot_be_read_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keys\.yaml"):
        Keys(tmp_path / "keys.yaml", CLASSES, 30.0, 0.0)
    assert Keys(None, CLASSES, 30.0, 0.0).of({}) == ANYBODY


def knows(keys: Keys, key: str) -> bool:
    try:
        keys.of(bearer(key))
    except RequestError:
        return False
    return True


def test_keys_of_a_mounted_secret_that_was_replaced_are_read_without_a_signal(tmp_path: Path) -> None:
    """kubelet writes a new folder beside the old one and swaps the link that the file's own link goes through."""
    for folder, key in (("..old", "a"), ("..new", "b")):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "api-keys.yaml", **{key: ""})
        os.utime(tmp_path / folder / "api-keys.yaml", (1.0, 1.0))  # of one time and one size
    (tmp_path / "..data").symlink_to("..old")
    (tmp_path / "api-keys.yaml").symlink_to("..data/api-keys.yaml")
    keys = Keys(tmp_path / "api-keys.yaml", CLASSES, 30.0, 0.0)
    for now_s in (2.0, 4.0):
        keys.refresh(now_s)
        assert knows(keys, "A")
    (tmp_path / "..data_tmp").symlink_to("..new")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    keys.refresh(6.0)
    assert knows(keys, "A"), "it may be half written until it has been the same twice"
    keys.refresh(8.0)
    assert (knows(keys, "A"), knows(keys, "B")) == (False, True)


def test_a_file_of_keys_that_turns_bad_or_goes_is_told_once_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "keys.yaml", a="")
    keys = Keys(path, CLASSES, 30.0, 0.0)
    path.write_text("keys: [", encoding="utf-8")
    for now_s in range(5):
        keys.refresh(float(now_s))
    assert caplog.text.count("stay as they were") == 1
    path.unlink()
    for now_s in range(5, 10):
        keys.refresh(float(now_s))
    assert caplog.text.count("stay as they were") == 2
    assert knows(keys, "A")
    written(path, c="")
    for now_s in (10.0, 12.0):
        keys.refresh(now_s)
    assert (knows(keys, "A"), knows(keys, "C")) == (False, True)
    Keys(None, CLASSES, 30.0, 0.0).refresh(1.0)
