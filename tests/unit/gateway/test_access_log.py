"""The access log: whole lines of JSON, whatever becomes of the file below."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from baton.base.errors import ConfigError
from baton.gateway import access_log
from baton.gateway.access_log import AccessLine, AccessLog
from baton.gateway.ledger import Ledger

LIMIT_S = 15.0


def line(request_id: str, **more: Any) -> AccessLine:
    return AccessLine(
        time=datetime(2026, 11, 24, 2, 30, tzinfo=UTC),
        request_id=request_id,
        path="/v1/chat/completions",
        status=200,
        **more,
    )


def ledger() -> Ledger:
    served = Ledger(10.0)
    served.admitted, served.prefill_sent, served.prefilled, served.decode_sent = 10.5, 10.75, 11.75, 12.0
    served.first_byte, served.ended = 12.5, 15.0
    return served


def ids(path: Path) -> list[str]:
    return [json.loads(text)["request_id"] for text in path.read_text().splitlines()]


def eventually(true: Callable[[], bool]) -> None:
    """Wait for what the log's own thread does; bounded."""
    end_s = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.002)


def test_a_line_says_what_happened_and_its_parts_sum(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log.write(line("r1", model="m", priority_class="batch", stream=True, prefill="p0:1", error="line\nbreak"), ledger())
    log.close()
    [text] = path.read_text().splitlines()
    told = json.loads(text)
    assert told["time"] == "2026-11-24T02:30:00Z"
    assert told["class"] == "batch"
    assert told["error"] == "line\nbreak"
    assert told["decode"] is None
    assert told["parts_s"] == {
        "queue": 0.5,
        "route": 0.25,
        "prefill": 1.0,
        "handover": 0.25,
        "transfer_and_first_decode": 0.5,
    }
    assert sum(told["parts_s"].values()) == told["ttft_s"] == 2.5
    assert told["elapsed_s"] == 5.0


def test_a_line_has_no_place_for_what_was_asked_or_answered() -> None:
    assert not {"prompt", "messages", "body", "text", "content", "key"} & set(AccessLine.__struct_fields__)


def test_lines_come_in_order_and_all_of_them_when_the_log_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text('{"request_id":"before"}\n')
    log = AccessLog(str(path), flush_s=60)
    for number in range(1000):
        log.write(line(str(number)), ledger())
    log.close()
    assert ids(path) == ["before", *map(str, range(1000))]
    assert log.num_lines_lost == 0


def test_a_waiting_line_is_written_without_another(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path), flush_s=0.01)
    log.write(line("r1"), ledger())
    eventually(lambda: bool(path.read_text()))
    assert ids(path) == ["r1"]
    log.close()


def test_after_a_rotation_lines_go_to_the_new_file(tmp_path: Path) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(str(path), flush_s=0.01)
    log.write(line("r1"), ledger())
    eventually(lambda: bool(path.read_text()))
    path.rename(old)
    log.reopen()
    eventually(path.exists)
    log.write(line("r2"), ledger())
    log.close()
    assert ids(old) == ["r1"]
    assert ids(path) == ["r2"]


def test_a_rotation_that_fails_keeps_the_old_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    log = AccessLog(str(path), flush_s=0.01)
    path.rename(old)
    path.mkdir()
    log.reopen()
    eventually(lambda: "the old file goes on" in caplog.text)
    log.write(line("r1"), ledger())
    log.close()
    assert ids(old) == ["r1"]


def test_stdout_takes_lines_too(capfd: pytest.CaptureFixture[str]) -> None:
    log = AccessLog("-")
    log.write(line("r1"), ledger())
    log.close()
    assert json.loads(capfd.readouterr().out)["request_id"] == "r1"


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write the access log .*/no/such: No such file or directory; choose"):
        AccessLog(str(tmp_path / "no" / "such"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_full_disk_loses_lines_counts_them_and_complains_once(caplog: pytest.LogCaptureFixture) -> None:
    log = AccessLog("/dev/full", flush_s=0.01)
    for number in range(3):
        log.write(line(str(number)), ledger())
        eventually(lambda lost=number + 1: log.num_lines_lost == lost)  # type: ignore[misc]
    log.close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "lines of the access log /dev/full are lost: No space left on device" in caplog.text


def test_a_line_cut_short_by_a_full_disk_does_not_swallow_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real, room = tmp_path / "access.log", os.write, [40, 0, 1 << 20]

    def write(fd: int, data: bytes) -> int:
        if not room[0]:
            room.pop(0)
            raise OSError(28, "No space left on device")
        taken = data[: room[0]]
        if room[0] < len(data):
            room.pop(0)
        return real(fd, taken)

    monkeypatch.setattr(access_log.os, "write", write)
    log = AccessLog(str(path), flush_s=0.01)
    log.write(line("r1"), ledger())
    eventually(lambda: log.num_lines_lost == 1)
    log.write(line("r2"), ledger())
    log.close()
    cut, whole = path.read_text().splitlines()
    assert len(cut) == 40
    assert json.loads(whole)["request_id"] == "r2"
    assert log.num_lines_lost == 1


def test_a_reader_that_is_stuck_holds_up_nobody_and_costs_bounded_memory() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, b"\n" * 4096)
    log = AccessLog(f"/dev/fd/{write}", flush_s=0.01, max_waiting=50)
    log.write(line("first"), ledger())
    eventually(lambda: not log._waiting)  # the log's thread has it, and waits for the pipe
    for number in range(500):
        log.write(line(str(number)), ledger())
    assert log.num_lines_lost == 450
    log.close(timeout_s=0.01)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        got = [json.loads(text)["request_id"] for text in pipe if text.strip()]
    assert got == ["first", *map(str, range(50))]
