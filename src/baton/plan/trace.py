"""A trace of requests as Mooncake publishes and AIPerf replays them: lengths, arrivals, and prefixes they share.

A line is one JSON object with `input_length` and `output_length` in tokens, `timestamp` in milliseconds and, where
known, `hash_ids`: one id for every 512 tokens of the prompt, equal ids for equal prefixes.
Source: kvcache-ai/Mooncake, mooncake_trace.jsonl; AIPerf, "mooncake_trace" input.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from baton.base.errors import ConfigError
from baton.perf.queueing import Lengths

_BLOCK_TOKENS = 512


class _Line(msgspec.Struct):
    input_length: int
    output_length: int
    timestamp: float | None = None
    hash_ids: list[int] = []


@dataclass(frozen=True, slots=True)
class Trace:
    """What a trace asks of a deployment.

    lengths: (isl, osl) of every request. rate_per_s: requests over the time they arrive in, None without timestamps.
    arrival_cv2: squared coefficient of variation of the gaps. hit_rate: share of prompt tokens whose block some earlier
    request had, as an unbounded cache would have them.
    """

    lengths: tuple[tuple[int, int], ...]
    rate_per_s: float | None
    arrival_cv2: float
    hit_rate: float

    @property
    def mix(self) -> Lengths:
        """The lengths as queues meet them, many put together."""
        return Lengths.of_trace(self.lengths)

    @property
    def isl(self) -> float:
        """Mean prompt tokens."""
        return float(np.mean([isl for isl, _ in self.lengths]))

    @property
    def osl(self) -> float:
        """Mean output tokens."""
        return float(np.mean([osl for _, osl in self.lengths]))


def read_trace(path: Path) -> Trace:
    """Read a trace; raises ConfigError with file and line for what is none."""
    try:
        texts = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot read it: {error.strerror}; give a trace in Mooncake's format, one JSON object a line"
        ) from error
    lines = [_line(path, number, text) for number, text in enumerate(texts, 1) if text.strip()]
    if not lines:
        raise ConfigError(
            f"{path}: no requests in it; a trace is one JSON object a line with input_length and output_length"
        )
    times_s = sorted(line.timestamp / 1e3 for line in lines if line.timestamp is not None)
    gaps_s = np.diff(times_s) if len(times_s) == len(lines) else np.array([])
    has_times = len(gaps_s) > 1 and gaps_s.sum() > 0
    return Trace(
        lengths=tuple((line.input_length, line.output_length) for line in lines),
        rate_per_s=float(1 / gaps_s.mean()) if has_times else None,
        arrival_cv2=float(gaps_s.var() / gaps_s.mean() ** 2) if has_times else 1.0,
        hit_rate=_hit_rate(lines),
    )


def _line(path: Path, number: int, text: bytes) -> _Line:
    try:
        line = msgspec.json.decode(text, type=_Line)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"{path}:{number}: {error}; a line needs input_length and output_length, in tokens"
        ) from error
    if line.input_length < 1 or line.output_length < 1:
        raise ConfigError(
            f"{path}:{number}: input_length {line.input_length}, output_length {line.output_length}: below 1"
        )
    return line


def _hit_rate(lines: list[_Line]) -> float:
    seen: set[int] = set()
    hits = 0
    for line in lines:
        for block in line.hash_ids:
            if block not in seen:
                break
            hits += _BLOCK_TOKENS
        seen.update(line.hash_ids)
    return min(0.99, hits / sum(line.input_length for line in lines))
