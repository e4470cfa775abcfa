"""Traces: one request, one span below its caller's, and below that what it waited for."""

import importlib
import re
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from baton.base.errors import ConfigError
from baton.gateway.access_log import AccessLine
from baton.gateway.ledger import Ledger
from baton.gateway.tracing import Tracing, open_tracing

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CALLER.removesuffix("01") + "00"
UNIX_S = 1_800_000_000.0


class Traced:
    """A tracing whose spans are kept here; the ledgers' clock says 100 when Unix time is UNIX_S."""

    def __init__(self, fraction: float = 0.0) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracing = Tracing(
            SimpleSpanProcessor(self._exporter),
            Random(7),
            fraction=fraction,
            unix_s=lambda: UNIX_S,
            clock_s=lambda: 100.0,
        )

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        spans = self._exporter.get_finished_spans()
        named = {span.name: span for span in spans}
        assert len(named) == len(spans)
        return named


@pytest.fixture
def traced() -> Iterator[Traced]:
    one = Traced()
    yield one
    one.tracing.close()


def served() -> Ledger:
    ledger = Ledger(90.0)
    ledger.admitted, ledger.prefill_sent, ledger.prefilled, ledger.decode_sent = 90.5, 90.75, 91.75, 92.0
    ledger.first_byte, ledger.ended = 92.5, 95.0
    return ledger


def line(**more: Any) -> AccessLine:
    facts = {"model": "m", "outcome": "completed", "stream": True, "prefill": "p0:1", "decode": "d0:0", **more}
    path = facts.pop("path", "/v1/chat/completions")
    status = facts.pop("status", 200)
    return AccessLine(time=datetime(2026, 1, 1, tzinfo=UTC), request_id="r1", path=path, status=status, **facts)


def seconds(span: ReadableSpan) -> tuple[float, float]:
    """When a span began and ended, on the ledgers' clock."""
    assert span.start_time is not None
    assert span.end_time is not None
    began, ended = (round(unix_ns / 1e9 - UNIX_S + 100, 6) for unix_ns in (span.start_time, span.end_time))
    return began, ended


def ids(headers: dict[str, str]) -> tuple[str, str, str]:
    found = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", headers["traceparent"])
    assert found
    return found[1], found[2], found[3]


def test_a_request_is_a_span_below_its_callers_with_its_stages_below_it(traced: Traced) -> None:
    trace = traced.tracing.begin({"traceparent": CALLER, "tracestate": "vendor=1"})
    traced.tracing.legs(trace, served(), line())
    traced.tracing.request(trace, served(), line(num_prompt_tokens=12, num_output_tokens=3, client="10.0.0.9"))
    spans = traced.spans
    assert {name: seconds(span) for name, span in spans.items()} == {
        "POST /v1/chat/completions": (90.0, 95.0),
        "queue": (90.0, 90.5),
        "prefill": (90.75, 91.75),
        "decode": (92.0, 95.0),
    }
    whole = spans["POST /v1/chat/completions"]
    assert whole.kind is SpanKind.SERVER
    assert whole.parent is not None
    assert f"{whole.parent.span_id:016x}" == "b7ad6b7169203331"
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {trace.name} == {CALLER[3:35]}
    assert {span.context.trace_state.get("vendor") for span in spans.values()} == {"1"}
    for name in ("queue", "prefill", "decode"):
        assert spans[name].parent is not None
        assert spans[name].parent.span_id == whole.context.span_id
    assert len({span.context.span_id for span in spans.values()}) == 4
    assert {span.status.status_code for span in spans.values()} == {StatusCode.UNSET}
    assert dict(whole.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "client.address": "10.0.0.9",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "m",
        "gen_ai.request.stream": True,
        "gen_ai.response.time_to_first_chunk": 2.5,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
        "baton.request_id": "r1",
        "baton.outcome": "completed",
    }
    assert spans["prefill"].kind is SpanKind.CLIENT
    assert (spans["prefill"].attributes or {})["baton.rank"] == "p0:1"
    assert (spans["decode"].attributes or {})["baton.rank"] == "d0:0"
    assert whole.resource.attributes["service.name"] == "baton-gateway"


def test_the_engines_are_told_the_spans_of_their_legs(traced: Traced) -> None:
    trace = traced.tracing.begin({"traceparent": CALLER, "tracestate": "vendor=1"})
    told = {"prefill": trace.prefill_headers(), "decode": trace.decode_headers()}
    traced.tracing.legs(trace, served(), line())
    for leg, headers in told.items():
        trace_id, span_id, flags = ids(headers)
        assert span_id == f"{traced.spans[leg].context.span_id:016x}"
        assert (trace_id, flags) == (CALLER[3:35], "01")
        assert headers["tracestate"] == "vendor=1"


def test_a_context_that_is_not_sampled_makes_no_spans_and_goes_on_as_it_is(traced: Traced) -> None:
    trace = traced.tracing.begin({"traceparent": UNSAMPLED, "tracestate": "vendor=1"})
    assert trace.prefill_headers() == trace.decode_headers() == {"traceparent": UNSAMPLED, "tracestate": "vendor=1"}
    traced.tracing.legs(trace, served(), line())
    traced.tracing.request(trace, served(), line())
    assert not traced.spans


def test_a_request_without_a_context_begins_a_trace() -> None:
    traced = Traced(fraction=1.0)
    trace = traced.tracing.begin({})
    traced.tracing.legs(trace, served(), line())
    traced.tracing.request(trace, served(), line())
    whole = traced.spans["POST /v1/chat/completions"]
    assert whole.parent is None
    assert f"{whole.context.trace_id:032x}" == trace.name == ids(trace.prefill_headers())[0]
    assert traced.spans["decode"].context.trace_id == whole.context.trace_id


def test_a_fraction_of_the_traces_that_begin_here_is_sampled_and_the_engines_are_told_which() -> None:
    traced = Traced(fraction=0.25)
    begun = [traced.tracing.begin({}) for _ in range(4000)]
    assert 800 < sum(trace.sampled for trace in begun) < 1200
    for trace in begun:
        assert ids(trace.decode_headers())[2] == ("01" if trace.sampled else "00")
    assert not any(Traced(fraction=0.0).tracing.begin({}).sampled for _ in range(100))
    assert all(traced.tracing.begin({"traceparent": CALLER}).sampled for _ in range(100))


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "nonsense",
        CALLER.upper(),
        CALLER + "-more",
        "ff" + CALLER[2:],
        CALLER.replace("b7ad6b7169203331", "0" * 16),
        CALLER.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32),
        f"{CALLER}, {CALLER}",
    ],
)
def test_a_context_that_is_not_well_formed_is_none(traced: Traced, broken: str) -> None:
    trace = traced.tracing.begin({"traceparent": broken, "tracestate": "vendor=1"})
    assert trace.parent_id == 0
    assert trace.name != CALLER[3:35]
    assert "tracestate" not in trace.prefill_headers()


def test_a_version_to_come_may_say_more(traced: Traced) -> None:
    assert traced.tracing.begin({"traceparent": "01" + CALLER[2:] + "-more"}).name == CALLER[3:35]


@given(st.text(max_size=80) | st.just(CALLER), st.text(max_size=80) | st.from_regex(r"[a-z]+=[ -~]{0,20}(,[a-z]=.)?"))
def test_no_header_breaks_it_and_what_is_sent_is_well_formed(parent: str, state: str) -> None:
    traced = Traced(fraction=1.0)
    trace = traced.tracing.begin({"traceparent": parent, "tracestate": state})
    ids(trace.prefill_headers())
    traced.tracing.request(trace, served(), line())
    assert traced.spans.keys() == {"queue", "POST /v1/chat/completions"}


def test_generations_of_one_request_have_legs_of_their_own_below_one_span(traced: Traced) -> None:
    trace = traced.tracing.begin({"traceparent": CALLER})
    parts = [traced.tracing.part(trace) for _ in range(3)]
    assert {part.request_id for part in parts} == {trace.request_id}
    legs = {ids(headers)[1] for part in parts for headers in (part.prefill_headers(), part.decode_headers())}
    assert len(legs) == 6


def test_a_prefill_that_failed_is_an_error_and_ends_with_the_request(traced: Traced) -> None:
    ledger = Ledger(90.0)
    ledger.admitted, ledger.prefill_sent, ledger.ended = 90.5, 90.75, 93.0
    trace = traced.tracing.begin({"traceparent": CALLER})
    traced.tracing.legs(trace, ledger, line(outcome="failed"))
    traced.tracing.request(trace, ledger, line(outcome="failed", status=502))
    spans = traced.spans
    assert set(spans) == {"POST /v1/chat/completions", "queue", "prefill"}
    assert seconds(spans["prefill"]) == (90.75, 93.0)
    for name, kind in (("prefill", "failed"), ("POST /v1/chat/completions", "502")):
        assert spans[name].status.status_code is StatusCode.ERROR
        assert (spans[name].attributes or {})["error.type"] == kind
    assert "gen_ai.response.time_to_first_chunk" not in (spans["POST /v1/chat/completions"].attributes or {})


def test_what_the_client_did_wrong_is_no_error_of_the_gateway(traced: Traced) -> None:
    ledger = Ledger(90.0)
    ledger.ended = 90.1
    trace = traced.tracing.begin({"traceparent": CALLER})
    traced.tracing.request(trace, ledger, line(status=400, outcome=None, path="/v1/completions"))
    [span] = traced.spans.values()
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})["gen_ai.operation.name"] == "text_completion"


def test_attributes_have_the_names_of_the_conventions(traced: Traced) -> None:
    modules = ("semconv.attributes.http_attributes", "semconv.attributes.url_attributes",
               "semconv.attributes.client_attributes", "semconv.attributes.error_attributes",
               "semconv._incubating.attributes.gen_ai_attributes")  # fmt: skip
    known = {
        value
        for module in modules
        for value in vars(importlib.import_module(f"opentelemetry.{module}")).values()
        if isinstance(value, str)
    }
    trace = traced.tracing.begin({"traceparent": CALLER})
    about = line(status=502, outcome="failed", num_prompt_tokens=1, num_output_tokens=1, client="c")
    traced.tracing.legs(trace, served(), about)
    traced.tracing.request(trace, served(), about)
    used = {name for span in traced.spans.values() for name in span.attributes or {}}
    assert {name for name in used if not name.startswith("baton.")} <= known
    assert len(used) > 12


class Collector(BaseHTTPRequestHandler):
    """An OTLP/HTTP collector on this machine."""

    got: ClassVar[list[tuple[str, ExportTraceServiceRequest]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.got.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


def test_spans_reach_a_collector_before_tracing_is_closed() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
        tracing = open_tracing(endpoint, Random(1), fraction=1.0, unix_s=lambda: UNIX_S, clock_s=lambda: 100.0)
        trace = tracing.begin({})
        tracing.legs(trace, served(), line())
        tracing.request(trace, served(), line())
        tracing.close()
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
    spans = [
        span for _, sent in Collector.got for of in sent.resource_spans for s in of.scope_spans for span in s.spans
    ]
    assert {path for path, _ in Collector.got} == {"/v1/traces"}
    assert {span.name for span in spans} == {"POST /v1/chat/completions", "queue", "prefill", "decode"}
    assert {span.trace_id.hex() for span in spans} == {trace.name}


@pytest.mark.parametrize("endpoint", ["", "collector:4318", "grpc://collector:4317", "http://"])
def test_an_endpoint_that_is_no_url_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="is no endpoint for traces: give a URL such as http://collector:4318"):
        open_tracing(endpoint, Random(1), fraction=1.0, unix_s=lambda: 0.0, clock_s=lambda: 0.0)


def test_without_opentelemetry_one_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"pip install 'baton\[tracing\]'"):
        open_tracing("http://collector:4318/v1/traces", Random(1), fraction=1, unix_s=lambda: 0.0, clock_s=lambda: 0.0)
