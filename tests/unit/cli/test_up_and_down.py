"""`baton up`, `status`, `logs` and `down` together, over fake engines: what a person sees, and what is left."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from baton.local.state import Phase

if TYPE_CHECKING:
    from conftest import Baton

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="marks are read from /proc")


def edit(recipe: Path, old: str, new: str) -> None:
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))


def test_up_until_ctrl_c(baton: Baton) -> None:
    """Phases, the address, the command, the verdict; then nothing is left, and a second up works at once."""
    for _ in range(2):
        process = baton.up()
        assert len(baton.living()) == 5  # two engines, a runaway of each, the gateway
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert baton.living() == []
        assert list(baton.temp.iterdir()) == []
        assert (process.returncode, err) == (0, "")
    port = re.search(r"ready at http://127\.0\.0\.1:(\d+)/v1", out)
    assert port
    assert (
        f"curl -sS http://localhost:{port[1]}/v1/chat/completions -H 'Content-Type: application/json' "
        "-H 'Authorization: Bearer dummy' \\\n"
        '  -d \'{"model":"deepseek-ai/DeepSeek-R1","messages":[{"role":"user","content":"Say hello!"}],'
        '"max_tokens":64}\''
    ) in out
    assert "PROVEN" in out
    for name in ("prefill-0", "decode-0", "gateway"):
        phases = re.findall(rf"{name} +(\w+)", out)
        assert phases[0] == "starting"
        assert phases[-2:] == ["ready", "stopped"]


def test_what_is_not_proven_exits_1(baton: Baton) -> None:
    """It stays in front all the same; the exit code tells."""
    baton.env["FAKE_VERDICT"] = "not"
    process = baton.up()
    assert process.stdout is not None
    line = next(line for line in process.stdout if "NOT PROVEN" in line)
    assert "fake check: no" in line
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 1


def test_a_second_up_is_told_of_the_first(baton: Baton) -> None:
    """Exit 2, and the message names the process and what to do."""
    first = baton.up("--no-prove")
    code, out, err = baton("up", str(baton.recipe))
    assert (code, out) == (2, "")
    assert err.startswith(f"baton: t is already running: process {first.pid} (baton up)")
    assert "`baton down`" in err
    assert len(baton.living()) == 5
    assert baton("down")[1] == "t: stopped decode-0, gateway, prefill-0\n"
    first.communicate(timeout=20)
    assert first.returncode == 0


@pytest.mark.parametrize("by", ["up", "down"])
def test_leftovers_of_a_killed_supervisor(baton: Baton, by: str) -> None:
    """SIGKILL on the supervisor blocks nobody: status tells, down ends them, and so does the next up."""
    first = baton.up("--no-prove")
    first.kill()
    first.communicate()
    old = {process.pid for process in baton.living()}
    assert len(old) == 5
    code, out, _ = baton("status", "--json")
    known = json.loads(out)
    assert (code, known["running"], known["ready"]) == (1, False, False)
    assert known["leftovers"] == ["decode-0", "gateway", "prefill-0"]
    if by == "down":
        assert baton("down")[:2] == (0, "t: stopped decode-0, gateway, prefill-0\n")
        assert baton.living() == []
        assert list(baton.temp.iterdir()) == []
        return
    second = baton.up("--no-prove")
    assert not any(pid in old for pid in (process.pid for process in baton.living()))
    os.kill(second.pid, signal.SIGINT)
    out, _ = second.communicate(timeout=20)
    assert "ended what an earlier run had left: decode-0, gateway, prefill-0" in out


def test_detach_status_logs_down(baton: Baton) -> None:
    """It runs on without its parent; status and logs look at it; down ends it, and again says so."""
    assert baton("status")[0] == 3
    code, out, err = baton("up", str(baton.recipe), "--detach")
    assert (code, err) == (0, "")
    assert "PROVEN" in out
    assert "baton down" in out
    code, out, _ = baton("status", "--json")
    known = json.loads(out)
    assert (code, known["running"], known["ready"]) == (0, True, True)
    assert [child["name"] for child in known["children"]] == ["prefill-0", "decode-0", "gateway"]
    code, out, _ = baton("status")
    assert code == 0
    assert re.search(r"prefill-0 +ready", out)
    assert known["gateway_url"] in out
    code, out, _ = baton("logs", "prefill", "-n", "1")
    assert re.fullmatch(r"\(EngineCore pid=2\) INFO .*serving from process \d+\n", out)
    assert "decode-0  | (EngineCore" in baton("logs")[1]
    code, _, err = baton("logs", "nobody")
    assert code == 2
    assert "no role or process 'nobody' in t; there are: decode, prefill, prefill-0, decode-0, gateway" in err
    assert baton("down")[:2] == (0, "t: stopped decode-0, gateway, prefill-0\n")
    assert baton.living() == []
    assert baton("down")[:2] == (0, "nothing was running\n")
    assert baton("status")[0] == 3


def test_a_crash_is_shown_and_logs_follow_the_restart(baton: Baton) -> None:
    """`logs -f` goes on over a crash and ends by Ctrl-C; the others keep their processes."""
    process = baton.up("--no-prove")
    before = {child.name: child.process for child in baton.until_ready(process).children}
    follow = baton.start("logs", "decode-0", "-f")
    assert follow.stdout is not None
    served = iter(follow.stdout.readline, "")
    first = next(line for line in served if "serving from process" in line)
    victim = before["decode-0"]
    assert victim is not None
    os.kill(victim.pid, signal.SIGKILL)
    second = next(line for line in served if "serving from process" in line)
    assert second != first
    os.kill(follow.pid, signal.SIGINT)
    follow.communicate(timeout=20)
    assert follow.returncode == 130
    after = {child.name: child for child in baton.until_ready(process).children}
    assert after["prefill-0"].process == before["prefill-0"]
    assert after["gateway"].process == before["gateway"]
    assert after["decode-0"].num_crashes == 1
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert "decode-0 crashed (killed by SIGKILL); it starts again in 1 s" in out
    assert "decode-0 | (EngineCore" in out


def test_detach_gives_up_on_what_keeps_crashing(baton: Baton) -> None:
    """Nobody watches a detached run: after three crashes before it was ready it is ended, and shown why."""
    (baton.model / "crash").touch()
    code, out, err = baton("up", str(baton.recipe), "--detach")
    assert code == 1
    assert re.search(r"baton: .*(prefill|decode)-0.* crashed 3 times before it was ready; gave up", err)
    assert "the fake engine was told to crash" in out
    assert baton.living() == []
    assert baton.run_dir.owner() is None


def test_ctrl_c_while_detaching_leaves_nothing(baton: Baton) -> None:
    """The parent takes the supervisor with it if it is told to stop before it was ready."""
    (baton.model / "crash").touch()
    parent = baton.start("up", str(baton.recipe), "--detach")
    assert parent.stdout is not None
    next(line for line in parent.stdout if "crashed" in line)
    os.kill(parent.pid, signal.SIGINT)
    parent.communicate(timeout=20)
    assert parent.returncode == 130
    assert baton.living() == []
    assert baton.run_dir.owner() is None


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_a_taken_port_is_an_error_of_the_person(baton: Baton, detach: list[str]) -> None:
    """Exit 2, with the port, its holder and what to do; nothing was started."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code, _, err = baton("up", str(baton.recipe), "--port", str(port), *detach)
    assert code == 2
    assert f"baton: port {port} on 127.0.0.1 is taken by process {os.getpid()}" in err
    assert "Traceback" not in err
    assert not (baton.run_dir.logs / "gateway.log").exists()


def test_a_second_ctrl_c_kills_at_once(baton: Baton) -> None:
    """An engine that ignores SIGTERM holds nobody up."""
    (baton.model / "stubborn").touch()
    process = baton.up("--no-prove")
    engines = [child.process.pid for child in baton.until_ready(process).children if child.role and child.process]
    os.kill(process.pid, signal.SIGINT)
    while (state := baton.run_dir.read_state()) is None or state.reason != "stopping":
        pass
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=8)
    assert not any(psutil.pid_exists(pid) for pid in engines)
    final = baton.run_dir.read_state()
    assert final is not None
    assert {child.phase for child in final.children} == {Phase.STOPPED}
