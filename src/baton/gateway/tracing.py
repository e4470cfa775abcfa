"""OpenTelemetry traces: a span for every request, with its wait, its prefill and its decode below it.

The ids are made when a request arrives, for the engines get them as their parents; the spans when it has ended, from
its ledger. Attributes are named as in OpenTelemetry's conventions for HTTP and GenAI, those of `baton.` apart.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, TypeAlias

from baton.base.errors import ConfigError
from baton.gateway.access_log import AccessLine
from baton.gateway.ledger import Ledger

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import SpanContext

CONTEXT_HEADERS = ("traceparent", "tracestate")
"""Without tracing they go on to the engines as they came."""

Attribute: TypeAlias = str | int | float | bool

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
_SPAN_BITS = (1 << 64) - 1
_OPERATIONS = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion"}


class Trace:
    """What is known of a request's place in its trace from its start; `parent_id` is the caller's span, 0 for none."""

    __slots__ = ("_state", "decode_id", "parent_id", "prefill_id", "request_id", "sampled", "trace_id")

    def __init__(self, trace_id: int, parent_id: int, state: str, ids: int, *, sampled: bool) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.sampled = sampled
        self._state = state
        self.request_id = ids >> 128 & _SPAN_BITS or 1
        self.prefill_id = ids >> 64 & _SPAN_BITS or 1
        self.decode_id = ids & _SPAN_BITS or 1

    @property
    def name(self) -> str:
        """The trace's id as it is written."""
        return f"{self.trace_id:032x}"

    def prefill_headers(self) -> dict[str, str]:
        """The context that the prefill rank gets."""
        return self._headers(self.prefill_id)

    def decode_headers(self) -> dict[str, str]:
        """The context that the decode rank gets."""
        return self._headers(self.decode_id)

    def _headers(self, span_id: int) -> dict[str, str]:
        # A request that is not sampled has no spans here: its caller's is the last one there is.
        parent = span_id if self.sampled else self.parent_id or self.request_id
        headers = {"traceparent": f"00-{self.trace_id:032x}-{parent:016x}-{self.sampled:02x}"}
        if self._state:
            headers["tracestate"] = self._state
        return headers


class Tracing:
    """Gives requests their ids, and makes their spans.

    fraction    of the requests that come without a context and are traced all the same; else the caller decides
    unix_s      Unix time, seconds
    clock_s     the ledgers' clock
    """

    def __init__(
        self,
        processor: SpanProcessor,
        random: Random,
        *,
        fraction: float,
        unix_s: Callable[[], float],
        clock_s: Callable[[], float],
    ) -> None:
        from opentelemetry import trace  # noqa: PLC0415 - only who traces needs it, and has it
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

        self._api: Any = trace
        self._random = random
        self._below = round(fraction * (1 << 64))
        self._unix_s = unix_s
        self._clock_s = clock_s
        self._ids = _GivenIds()
        version = importlib.metadata.version("baton")
        resource = Resource.create({"service.name": "baton-gateway", "service.version": version})
        self._provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=self._ids)  # type: ignore[arg-type]
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("baton.gateway", version)

    def begin(self, headers: Mapping[str, str]) -> Trace:
        """A request has arrived; a context that is not well-formed is none.

        Source   W3C Trace Context, 3.2 (traceparent) and 3.3 (tracestate)
        """
        ids = self._random.getrandbits(192)
        found = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
        if found and not (found[1] == "00" and found[5]):
            sampled = bool(int(found[4], 16) & _SAMPLED)
            return Trace(int(found[2], 16), int(found[3], 16), headers.get("tracestate", ""), ids, sampled=sampled)
        trace_id = self._random.getrandbits(128) or 1
        # As OpenTelemetry's TraceIdRatioBased: whoever asks again of the same trace decides the same.
        return Trace(trace_id, 0, "", ids, sampled=trace_id & _SPAN_BITS < self._below)

    def part(self, trace: Trace) -> Trace:
        """For one of several generations of a request: the same place in the trace, with legs of its own."""
        ids = self._random.getrandbits(128) | trace.request_id << 128
        return Trace(trace.trace_id, trace.parent_id, trace._state, ids, sampled=trace.sampled)

    def legs(self, trace: Trace, ledger: Ledger, line: AccessLine) -> None:
        """A generation has ended: its legs get their spans; what `line` says of ranks and outcome is said of them."""
        if not trace.sampled:
            return
        ended = ledger.ended or self._clock_s()
        above = self._context(trace, trace.request_id)
        if ledger.prefill_sent:
            failed = None if ledger.prefilled else line.outcome or "failed"
            about = _of_leg(line, line.prefill, failed)
            self._span("prefill", trace.prefill_id, above, ledger.prefill_sent, ledger.prefilled or ended, about)
        if ledger.decode_sent:
            failed = None if line.outcome == "completed" else line.outcome or "failed"
            about = _of_leg(line, line.decode, failed)
            self._span("decode", trace.decode_id, above, ledger.decode_sent, ended, about)

    def request(self, trace: Trace, ledger: Ledger, line: AccessLine) -> None:
        """A request has ended; `line` is what the access log says of it."""
        if not trace.sampled:
            return
        ended = ledger.ended or self._clock_s()
        if ledger.admitted:
            above = self._context(trace, trace.request_id)
            self._span(
                "queue", self._random.getrandbits(64) or 1, above, ledger.arrived, ledger.admitted, {}, kind="INTERNAL"
            )
        caller = self._context(trace, trace.parent_id) if trace.parent_id else None
        about = _of_request(line, ledger)
        self._ids.trace_id = trace.trace_id
        self._span(f"POST {line.path}", trace.request_id, caller, ledger.arrived, ended, about, kind="SERVER")

    def close(self) -> None:
        """Send what waits to be sent; blocks while the collector does not take it, for a bounded time."""
        self._provider.shutdown()

    def _span(
        self,
        name: str,
        span_id: int,
        above: SpanContext | None,
        began: float,
        ended: float,
        attributes: dict[str, Attribute],
        *,
        kind: str = "CLIENT",
    ) -> None:
        api = self._api
        offset_s = self._unix_s() - self._clock_s()
        self._ids.span_id = span_id
        parent = api.NonRecordingSpan(above) if above else api.INVALID_SPAN
        span = self._tracer.start_span(
            name,
            api.set_span_in_context(parent),
            kind=api.SpanKind[kind],
            attributes=attributes,
            start_time=round((began + offset_s) * 1e9),
        )
        if "error.type" in attributes:
            span.set_status(api.StatusCode.ERROR)
        span.end(round((ended + offset_s) * 1e9))

    def _context(self, trace: Trace, span_id: int) -> SpanContext:
        state = self._api.TraceState.from_header([trace._state]) if trace._state else None
        context: SpanContext = self._api.SpanContext(
            trace.trace_id, span_id, True, self._api.TraceFlags(_SAMPLED), state
        )
        return context


class _GivenIds:
    """OpenTelemetry's source of ids, giving those that were made when the request arrived."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_span_id(self) -> int:
        """The span's."""
        return self.span_id

    def generate_trace_id(self) -> int:
        """The trace's, asked for where a span has no parent."""
        return self.trace_id

    def is_trace_id_random(self) -> bool:
        """No: what a source of chance makes is not said to be."""
        return False


def open_tracing(
    endpoint: str, random: Random, *, fraction: float, unix_s: Callable[[], float], clock_s: Callable[[], float]
) -> Tracing:
    """Tracing that sends its spans in batches, from a thread of its own, to an OTLP/HTTP endpoint (.../v1/traces).

    Raises   ConfigError for another kind of endpoint, or where OpenTelemetry is not installed
    """
    if not re.match(r"https?://[^/]", endpoint):
        raise ConfigError(f"{endpoint!r} is no endpoint for traces: give a URL such as http://collector:4318/v1/traces")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"traces need OpenTelemetry, and {error.name} is not installed: pip install 'baton[tracing]'"
        ) from error
    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint))
    return Tracing(processor, random, fraction=fraction, unix_s=unix_s, clock_s=clock_s)


def _of_request(line: AccessLine, ledger: Ledger) -> dict[str, Attribute]:
    """Source   OpenTelemetry semantic conventions: HTTP server spans, and GenAI's names."""
    return _known(
        {
            "http.request.method": "POST",
            "http.route": line.path,
            "http.response.status_code": line.status,
            "url.path": line.path,
            "url.scheme": "http",
            "client.address": line.client or None,
            "error.type": str(line.status) if line.status >= 500 else None,
            "gen_ai.operation.name": _OPERATIONS.get(line.path),
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": line.model,
            "gen_ai.request.stream": line.stream,
            "gen_ai.response.time_to_first_chunk": ledger.ttft_s if ledger.first_byte else None,
            "gen_ai.usage.input_tokens": line.num_prompt_tokens,
            "gen_ai.usage.output_tokens": line.num_output_tokens,
            "baton.request_id": line.request_id,
            "baton.outcome": line.outcome,
            "baton.class": line.priority_class,
        }
    )


def _of_leg(line: AccessLine, rank: str | None, failed: str | None) -> dict[str, Attribute]:
    return _known(
        {
            "error.type": failed,
            "gen_ai.operation.name": _OPERATIONS.get(line.path),
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": line.model,
            "baton.rank": rank,
        }
    )


def _known(attributes: dict[str, Attribute | None]) -> dict[str, Attribute]:
    return {name: value for name, value in attributes.items() if value is not None}
