"""A deployment as shell scripts: exact arguments, whatever the recipe says, and nothing left after Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from baton.base.errors import ConfigError
from baton.engine.command import Place, serve_command
from baton.recipe.deployment import Deployment, resolve
from baton.recipe.document import parse
from baton.recipe.recipe import Recipe
from baton.recipe.workers import load_workers
from baton.render.documents import MARK
from baton.render.local import files

NASTY = [
    "$(touch pwned)",
    "`touch pwned`",
    "a'b\"c",
    "x; touch pwned #",
    "two\nlines\n",
    "",
    "é\u2028\t\\n",
    "--b c",
    "*",
]


def deployment(
    *, prefill: str = "{}", decode: str = "{}", accelerator: str = "cpu", port: int = 8000, **fields: object
) -> Deployment:
    model = {"name": "m", "path": "/m", "dtype": "float32", "max_model_len": 64, **dict(fields.pop("model", {}))}
    engine = {"version": "0.32.0", **fields}
    text = f"""
        baton: 1
        name: t
        model: {json.dumps(model)}
        engine: {json.dumps(engine)}
        hardware: {{accelerator: {accelerator}}}
        kv_transfer: {{buffer_device: cpu}}
        roles: {{prefill: {prefill}, decode: {decode}}}
        gateway: {{port: {port}}}
    """
    return resolve(parse(text, Recipe, source="t.yaml"), Path("/"))


def written(folder: Path, given: Deployment) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files(given).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def program(folder: Path, name: str, code: str) -> dict[str, str]:
    """Put a program on the path that is Python code."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{sys.executable} -S\n{code}")
    (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


def recorded(tmp_path: Path, given: Deployment, script: str) -> tuple[list[str], dict[str, str]]:
    """Run one script with a `vllm` and a `baton` that say what they were given."""
    code = "import json, os, sys\njson.dump([sys.argv, dict(os.environ)], open(os.environ['RECORD'], 'w'))\n"
    for name in ("vllm", "baton"):
        env = program(tmp_path / "bin", name, code)
    folder, record = written(tmp_path / "out", given), tmp_path / "record"
    subprocess.run(["sh", folder / script], cwd=tmp_path, env={**env, "RECORD": str(record)}, check=True)
    argv, environment = json.loads(record.read_text())
    return argv[1:], environment


def test_every_word_arrives_as_it_was(tmp_path: Path) -> None:
    """No value is read by the shell, in arguments or variables."""
    given = deployment(
        model={"name": NASTY[0], "aliases": NASTY[1:3], "path": "/m m/$HOME"},
        flags={"chat-template": NASTY[4], "many": NASTY, "config": {"a": NASTY}},
        env={f"V{at}": text for at, text in enumerate(NASTY)} | {"UID": "1", "IFS": "x", "PATHS": "$PATH"},
    )
    argv, env = recorded(tmp_path, given, "decode-0.sh")
    place = Place(host="127.0.0.1", http_port=8102, nixl_port=5601)
    command = serve_command(given, given.engines[1], place)
    assert argv == list(command.argv[1:])
    assert {name: env[name] for name in command.env} == dict(command.env)
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "out" / "pwned").exists()


def test_the_gateway_reads_the_workers_beside_it(tmp_path: Path) -> None:
    """From whatever folder it is called."""
    given = deployment(port=8102, model={"name": NASTY[4], "aliases": NASTY[:3]})
    argv, _ = recorded(tmp_path, given, "gateway.sh")
    assert argv[:7] == ["gateway", "--workers", "workers.yaml", "--host", "127.0.0.1", "--port", "8102"]
    workers = load_workers(tmp_path / "out" / "workers.yaml")
    assert (workers.model, workers.aliases) == (NASTY[4], tuple(NASTY[:3]))
    assert [worker.url for worker in workers.workers] == ["http://127.0.0.1:8101", "http://127.0.0.1:8103"]


def test_ports_are_told_apart_and_at_the_head() -> None:
    """A range for each engine's ranks; the gateway's own is left out."""
    found = files(deployment(prefill="{dp_size: 4, replicas: 2}", port=5606))
    heads = [line for line in found["run.sh"].splitlines() if line.startswith("#   ")]
    assert heads == [
        "#   prefill-0: HTTP 8101, NIXL 5600 to 5603, on 127.0.0.1",
        "#   prefill-1: HTTP 8102, NIXL 5607 to 5610, on 127.0.0.1",
        "#   decode-0: HTTP 8103, NIXL 5611, on 127.0.0.1",
        "#   gateway: HTTP 5606",
    ]
    assert set(found) == {"prefill-0.sh", "prefill-1.sh", "decode-0.sh", "gateway.sh", "workers.yaml", "run.sh"}
    assert all(MARK in text and "\n".join(heads) in text for text in found.values())


def test_engines_on_gpus_take_them_from_0_on() -> None:
    """In the order of the engines."""
    found = files(deployment(accelerator="h200", prefill="{gpus_per_node: 2, tp_size: 2}", decode="{gpus_per_node: 1}"))
    assert "  CUDA_VISIBLE_DEVICES=0,1 \\\n" in found["prefill-0.sh"]
    assert "  CUDA_VISIBLE_DEVICES=2 \\\n" in found["decode-0.sh"]
    assert "OMP_NUM_THREADS" not in found["decode-0.sh"]
    assert "  OMP_NUM_THREADS=1 \\\n" in files(deployment())["decode-0.sh"]


def test_comments_hold_only_what_is_safe() -> None:
    """Everything above `set -eu` is a comment, whatever the recipe says."""
    given = deployment(model={"name": "m\ntouch pwned"}, env={"A": "\ntouch pwned\n"})
    for name, text in files(given).items():
        if name.endswith(".sh"):
            head = text.partition("set -eu\n")[0]
            assert all(line.startswith("#") for line in head.splitlines())
            assert "pwned" not in head


@pytest.mark.parametrize(
    ("pool", "told"),
    [
        ("{nodes: 2, gpus_per_node: 1, dp_size: 2, expert_parallel: true}", r"spans 2 nodes.*--target kubernetes"),
        ("{gpus_per_node: 2, dp_size: 2, load_balancing: external}", r"load_balancing: external"),
    ],
)
def test_what_one_machine_cannot_be_is_refused(pool: str, told: str) -> None:
    """With the target that can."""
    with pytest.raises(ConfigError, match=told):
        files(deployment(accelerator="h200", prefill="{gpus_per_node: 1}", decode=pool))


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


PARENT = """\
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; print('child', flush=True); time.sleep(600)"],
                         stdout=subprocess.PIPE)
child.stdout.readline()
print(os.getpid(), child.pid, file=open("pids", "a"), flush=True)
if os.path.basename(sys.argv[0]) == os.environ.get("ENDS"):
    sys.exit(7)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="setsid is util-linux's")
@pytest.mark.parametrize("ends", ["", "baton"])
def test_run_leaves_nothing(tmp_path: Path, ends: str) -> None:
    """On Ctrl-C, and when one process ends: neither they nor what they started live on."""
    for name in ("vllm", "baton"):
        env = program(tmp_path / "bin", name, PARENT)
    folder = written(tmp_path / "out", deployment())
    run = subprocess.Popen(
        ["sh", folder / "run.sh"], env={**env, "ENDS": ends}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    started = [next(run.stdout) for _ in range(4)]
    assert started[-1] == "Ctrl-C stops everything\n"
    pids = [int(pid) for line in started[:3] for pid in re.findall(r": process (\d+),", line)]
    if not ends:
        while not (folder / "pids").exists() or len((folder / "pids").read_text().split()) < 6:
            assert run.poll() is None
        os.kill(run.pid, signal.SIGINT)
    _, err = run.communicate(timeout=30)
    assert run.returncode == (1 if ends else 130)
    assert ("ended: see its log" in err) is bool(ends)
    written_down = map(int, (folder / "pids").read_text().split())
    assert not any(is_running(pid) for pid in {*pids, *written_down})
