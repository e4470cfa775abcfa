"""`baton engine stand-in serve`: what is wrong is said in a line, and what ends leaves nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

PROGRAM = (sys.executable, "-m", "baton", "engine", "stand-in")
PREFILL = ("--kv-transfer-config", '{"kv_connector":"NixlConnector","kv_role":"kv_both"}')


def ended(*words: str) -> tuple[int, str]:
    """Exit status and standard error of one that ends by itself."""
    done = subprocess.run([*PROGRAM, *words], capture_output=True, text=True, check=False, timeout=20)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


@contextmanager
def serving(*words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running one and its origin."""
    process = subprocess.Popen(
        [*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("baton: stand-in for vLLM 0.32.0 on http://127.0.0.1:"), (line, process.poll())
        yield process, line.split()[-1]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@contextmanager
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serve", "m", "--prot", "1"), "vLLM 0.32.0 has no flag '--prot'"),
        (("serve", "m", "--port", "x"), "--port is 'x'; expected a whole number"),
        (("--step-time", "{", "serve", "m"), "--step-time '{'"),
        (("--step-time", '{"base_s": "long"}', "serve", "m"), "fields: base_s, per_prefill_token_s"),
        (("--step-time", '{"bas_s": 1}', "serve", "m"), "bas_s"),
        (("--step-time", '{"base_s": -1}', "serve", "m"), "base_s is -1.0; it must be 0 or more"),
        (("--faults", '{"slwo": 3}', "serve", "m"), "slwo"),
        (("--engine-version", "0.7.0", "serve", "m"), "--engine-version is 0.7.0"),
        (("--speed", "0", "serve", "m"), "speed is 0.0; it must be above 0"),
        (("m",), "expected `serve MODEL`"),
    ],
)
def test_what_is_wrong_ends_with_2_and_is_said_in_one_line(words: tuple[str, ...], said: str) -> None:
    status, error = ended(*words)
    assert (status, error.count("\n")) == (2, 1), error
    assert error.startswith("baton: ")
    assert said in error


def test_a_port_in_use_is_named() -> None:
    with taken() as port:
        status, error = ended("serve", "m", "--host", "127.0.0.1", "--port", str(port))
    assert status == 2
    assert f"the stand-in cannot listen on 127.0.0.1:{port}" in error


@pytest.mark.parametrize("ends_by", [signal.SIGINT, signal.SIGTERM])
def test_one_that_is_told_to_end_ends_with_0_and_leaves_nothing(ends_by: signal.Signals) -> None:
    with serving("serve", "m", "--host", "127.0.0.1", "--port", "0") as (process, origin):
        with urllib.request.urlopen(f"{origin}/health", timeout=10) as got:
            assert got.status == 200
        process.send_signal(ends_by)
        out, error = process.communicate(timeout=20)
        assert (process.returncode, out, error) == (0, "", "")
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{origin}/health", timeout=2)
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)


def test_one_that_dies_of_a_fault_ends_with_1() -> None:
    with serving("serve", "m", "--host", "127.0.0.1", "--port", "0") as (process, origin):
        request = urllib.request.Request(f"{origin}/faults", data=b'{"die": true}', method="POST")
        with suppress(OSError):  # it may die before it has answered
            urllib.request.urlopen(request, timeout=10).close()
        assert process.wait(20) == 1


def test_faults_from_the_start_are_there() -> None:
    words = ("--faults", '{"slow": 3}', "serve", "m", "--host", "127.0.0.1", "--port", "0")
    with serving(*words) as (_, origin), urllib.request.urlopen(f"{origin}/faults", timeout=10) as got:
        assert got.read() == b'{"slow":3.0}'
