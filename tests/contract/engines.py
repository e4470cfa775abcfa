"""An engine as the contract's tests see it: its routes, its streams taken apart, its counters, its KV events."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import zmq
from prometheus_client.parser import text_string_to_metric_families

from baton.engine.kv_transfer import REQUEST_PREFILL, release_body
from baton.engine.metrics import EngineMetrics, RankCounters

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
ABORT = "/inference/v1/abort_requests"

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class Stream:
    """A streamed answer, whole."""

    answer: httpx.Response
    events: list[JsonObject]
    done: bool

    @property
    def choices(self) -> list[JsonObject]:
        """Every event's choice; the event with the usage has none."""
        return [choice for event in self.events for choice in event["choices"]]

    def text(self, index: int = 0) -> str:
        """What the events of one choice add up to; reasoning counts as text."""
        return "".join(text_of(choice) for choice in self.choices if choice["index"] == index)

    @classmethod
    def read(cls, answer: httpx.Response) -> Stream:
        """Take a stream apart that has not been read from yet."""
        return cls.parse(answer, b"".join(answer.iter_raw()).decode())

    @classmethod
    def parse(cls, answer: httpx.Response, raw: str) -> Stream:
        """Take text apart: nothing but `data:` events, each ended by an empty line."""
        frames = raw.split("\n\n")
        assert frames.pop() == "", "the last event is ended as well"
        assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames), raw
        data = [frame.removeprefix("data: ") for frame in frames]
        done = data[-1] == "[DONE]"
        return cls(answer, [json.loads(event) for event in (data[:-1] if done else data)], done)


def text_of(choice: JsonObject) -> str:
    """A choice's text, streamed or not, chat or not."""
    if "text" in choice:
        return str(choice["text"])
    message = choice["delta"] if "delta" in choice else choice["message"]
    return (message.get("reasoning") or "") + (message.get("content") or "")


@dataclass
class Engine:
    """One server with one rank; `client` talks to it and to nothing else."""

    client: httpx.Client
    model: str
    _seeds: itertools.count[int] = field(default_factory=itertools.count)

    def body(self, path: str, **asked: Any) -> JsonObject:
        """A small greedy request, with what the test asks for instead."""
        prompt: JsonObject = {"prompt": "What is 2 + 2?"}
        if path == CHAT:
            prompt = {"messages": [{"role": "user", "content": "Say hello!"}]}
        elif asked.keys() & {"prompt"}:
            prompt = {}
        return {"model": self.model, "temperature": 0, "max_tokens": 8, **prompt, **asked}

    def post(self, path: str, headers: dict[str, str] | None = None, **asked: Any) -> httpx.Response:
        """Ask, whatever comes."""
        return self.client.post(path, json=self.body(path, **asked), headers=headers)

    def ask(self, path: str, request_id: str = "", **asked: Any) -> JsonObject:
        """A whole answer with status 200."""
        answer = self.post(path, {"x-request-id": request_id} if request_id else None, **asked)
        assert answer.status_code == 200, answer.text
        whole: JsonObject = answer.json()
        return whole

    def stream(self, path: str, **asked: Any) -> Stream:
        """A streamed answer, read to its end."""
        with self.client.stream("POST", path, json=self.body(path, stream=True, **asked)) as answer:
            return Stream.read(answer)

    def prompt(self, num_tokens: int) -> list[int]:
        """Token ids that no other test has sent: nothing of them is in a cache."""
        drawn = random.Random(next(self._seeds))
        return [drawn.randrange(10, 900) for _ in range(num_tokens)]

    # -- hand-off ----------------------------------------------------------------------------------------------

    def prefill(self, path: str, request_id: str, **asked: Any) -> JsonObject:
        """The prefill leg's whole answer."""
        return self.ask(path, request_id, **{**asked, "max_tokens": 1, "kv_transfer_params": dict(REQUEST_PREFILL)})

    def release(self, params: JsonObject) -> httpx.Response:
        """Ask a decode engine to let go of KV that nobody will fetch."""
        return self.client.post(COMPLETIONS, json=release_body(self.model, params))

    # -- metrics -----------------------------------------------------------------------------------------------

    def families(self) -> dict[str, Any]:
        """Metric families by name."""
        return {family.name: family for family in text_string_to_metric_families(self.client.get("/metrics").text)}

    def counters(self) -> RankCounters:
        """What baton reads of rank 0."""
        return EngineMetrics(self.client.get("/metrics").text).counters(0)

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        samples = [sample for family in self.families().values() for sample in family.samples if sample.name == name]
        assert samples, f"/metrics has no {name}"
        return float(sum(sample.value for sample in samples if labels.items() <= sample.labels.items()))

    def busy(self) -> float:
        """0 when no request runs or waits and no KV block is held; read by hand, as every test ends with it."""
        gauges = ("vllm:num_requests_running{", "vllm:num_requests_waiting{", "vllm:kv_cache_usage_perc{")
        lines = [line for line in self.client.get("/metrics").text.splitlines() if line.startswith(gauges)]
        assert len(lines) == len(gauges), lines
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    @property
    def block_size(self) -> int:
        """Tokens a KV block."""
        return int(EngineMetrics(self.client.get("/metrics").text).cache_config()["block_size"])


@dataclass
class Pair:
    """One prefill and one decode engine that hand KV over; what nobody fetches is held for `lease_s`."""

    prefill: Engine
    decode: Engine
    lease_s: float

    def expired(self) -> int:
        """Offers that ended with their lease; after a step, as an idle engine does not count."""
        self.prefill.ask(COMPLETIONS, max_tokens=1)
        return self.prefill.counters().expired_requests


@dataclass(frozen=True)
class Batch:
    """One message of a publisher of KV events."""

    topic: bytes
    seq: int
    payload: list[Any]

    @property
    def events(self) -> list[JsonObject]:
        """The events, in order."""
        events: list[JsonObject] = self.payload[1]
        return events

    @classmethod
    def read(cls, frames: list[bytes]) -> Batch:
        """Topic, sequence number, payload: three frames."""
        topic, seq, payload = frames
        return cls(topic, int.from_bytes(seq, "big"), msgspec.msgpack.decode(payload))


class KvEvents:
    """A subscriber to one engine's KV events, and a client of its replay."""

    END = (-1).to_bytes(8, "big", signed=True)

    def __init__(self, port: int, replay_port: int) -> None:
        self._context = zmq.Context()
        self._subscriber = self._context.socket(zmq.SUB)
        self._subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        self._subscriber.connect(f"tcp://127.0.0.1:{port}")
        self._replay_port = replay_port

    def close(self) -> None:
        """Let go of the sockets."""
        self._context.destroy(linger=0)

    def next(self, timeout_s: float = 10.0) -> Batch:
        """The next batch."""
        assert self._subscriber.poll(timeout_s * 1000), f"no KV event within {timeout_s} s"
        return Batch.read(self._subscriber.recv_multipart())

    def skip(self) -> None:
        """Drop what has come so far: events of tests before this one."""
        while self._subscriber.poll(300):
            self._subscriber.recv_multipart()

    def replay(self, start: int, timeout_s: float = 10.0) -> tuple[list[Batch], list[bytes]]:
        """The batches kept since `start`, and the frames of the message that ends them."""
        asker = self._context.socket(zmq.DEALER)
        asker.connect(f"tcp://127.0.0.1:{self._replay_port}")
        asker.send_multipart([b"", start.to_bytes(8, "big")])
        batches: list[Batch] = []
        while True:
            assert asker.poll(timeout_s * 1000), f"the replay did not end: {len(batches)} batches so far"
            empty, *frames = asker.recv_multipart()
            assert empty == b""
            if frames[1] == self.END:
                asker.close(linger=0)
                return batches, frames
            batches.append(Batch.read(frames))


@dataclass
class CachingEngine:
    """An engine with a prefix cache, and the KV events that it publishes."""

    engine: Engine
    events: KvEvents
    topic: bytes
