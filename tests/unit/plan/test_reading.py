"""What a plan is asked with: GPUs, durations, traces."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.plan.question import read_duration_s, read_gpus
from baton.plan.trace import read_trace


def test_gpus_are_a_number_and_a_name() -> None:
    assert read_gpus("32xH200") == (32, "h200")
    assert read_gpus("8 x h100") == (8, "h100-80gb")


@pytest.mark.parametrize("text", ["32", "H200", "0xH200", "4xA100", ""])
def test_other_gpus_are_an_error_that_lists_them(text: str) -> None:
    with pytest.raises(ConfigError, match="give a number and a GPU such as 32xH200; GPUs are b200, gb200"):
        read_gpus(text)


def test_durations_are_seconds_or_milliseconds() -> None:
    assert read_duration_s("--tpot", "50ms") == 0.05
    assert read_duration_s("--tpot", "2s") == read_duration_s("--tpot", "2") == 2.0


@pytest.mark.parametrize("text", ["", "0ms", "-1s", "50 minutes", "fast"])
def test_other_durations_are_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(ConfigError, match="--tpot"):
        read_duration_s("--tpot", text)


def test_a_trace_gives_lengths_rate_and_shared_prefixes(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(
        '{"timestamp": 0, "input_length": 1024, "output_length": 10, "hash_ids": [1, 2]}\n'
        '{"timestamp": 500, "input_length": 1024, "output_length": 30, "hash_ids": [1, 3]}\n\n'
        '{"timestamp": 1000, "input_length": 2048, "output_length": 20, "hash_ids": [4, 1, 2, 5], "session_id": "a"}\n'
    )
    trace = read_trace(path)
    assert (trace.isl, trace.osl, trace.rate_per_s) == (4096 / 3, 20, 2)
    assert trace.hit_rate == 512 / 4096, "a block counts as cached only after the ones before it"
    assert trace.arrival_cv2 == 0


def test_a_trace_without_times_has_no_rate(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"input_length": 10, "output_length": 1}\n')
    assert read_trace(path).rate_per_s is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"input_length": 10}', "trace.jsonl:2: .*output_length"),
        ("not json", "trace.jsonl:2: "),
        ('{"input_length": 0, "output_length": 1}', "trace.jsonl:2: input_length 0"),
    ],
)
def test_a_line_that_is_none_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(f'{{"input_length": 10, "output_length": 1}}\n{line}\n')
    with pytest.raises(ConfigError, match=message):
        read_trace(path)


def test_an_empty_trace_and_a_missing_one_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(ConfigError, match="no requests in it"):
        read_trace(tmp_path / "empty")
    with pytest.raises(ConfigError, match="cannot read it"):
        read_trace(tmp_path / "missing")
