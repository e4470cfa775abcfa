"""What `baton up` would run, as shell scripts that a person can read, and run without baton's supervisor.

    run.sh          starts everything, stops everything: on Ctrl-C, or as soon as one process ends
    <engine>.sh     one `vllm serve`
    gateway.sh      the gateway, over workers.yaml

Every word that comes from a recipe is quoted for the shell, and an argument of `env`: no value is ever read as shell,
and no variable of a recipe is one of the shell's own. Comments hold nothing a person wrote but the recipe's name.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from baton.engine.command import Command, Place, serve_command
from baton.engine.devices import device_env
from baton.engine.one_machine import HOST, gateway_arguments, refuse_shared_ports, workers_file
from baton.recipe.deployment import Deployment, EngineSpec
from baton.recipe.workers import dump_workers
from baton.render.documents import header

FIRST_HTTP_PORT = 8101
FIRST_NIXL_PORT = 5600
_WORKERS = "workers.yaml"
_CPU_ENV = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
"""one thread a rank runs on any machine; `baton up` counts cores and gives each rank its share"""

_HERE = 'CDPATH= cd -- "$(dirname -- "$0")"'


def files(deployment: Deployment) -> dict[str, str]:
    """Return the scripts of a deployment on one machine, and its workers file, by name.

    Raises   ConfigError if it needs more than one machine, or a word of it can be in no command line
    """
    gpus = [str(number) for number in range(sum(engine.num_gpus for engine in deployment.engines))]
    devices = device_env(deployment, gpus)
    refuse_shared_ports(deployment)
    places = _places(deployment)
    notes = list(_notes(deployment, places))
    found = {}
    for engine in deployment.engines:
        share = devices.get(engine.name, _CPU_ENV)
        command = serve_command(deployment, engine, places[engine.name])
        found[f"{engine.name}.sh"] = _script(deployment, _exec(Command(command.argv, {**share, **command.env})), notes)
    gateway = Command(("baton", *gateway_arguments(deployment, _WORKERS)), {"PYTHONUNBUFFERED": "1"})
    found["gateway.sh"] = _script(deployment, f"{_HERE}\n{_exec(gateway)}", notes)
    workers = workers_file(deployment, places, deployment.model.path)
    found[_WORKERS] = header(deployment, *notes) + dump_workers(workers)
    names = (*(engine.name for engine in deployment.engines), "gateway")
    found["run.sh"] = _script(deployment, _RUN.format(here=_HERE, names=" ".join(names)), notes)
    return found


def _places(deployment: Deployment) -> Mapping[str, Place]:
    """Ports counted up from the first, the gateway's left out."""
    http, nixl, taken = FIRST_HTTP_PORT, FIRST_NIXL_PORT, deployment.gateway.port
    places = {}
    for engine in deployment.engines:
        http += http == taken
        nixl = taken + 1 if nixl <= taken < nixl + engine.dp_size_local else nixl
        places[engine.name] = Place(host=HOST, http_port=http, nixl_port=nixl)
        http, nixl = http + 1, nixl + engine.dp_size_local
    return places


def _notes(deployment: Deployment, places: Mapping[str, Place]) -> Iterator[str]:
    """What heads every file: who listens where."""
    yield "Ports, fixed: they must be free."
    for engine in deployment.engines:
        yield _listens(engine, places[engine.name])
    port = deployment.gateway.port
    yield f"  gateway: HTTP {port or 'any free one, named in gateway.log'}"


def _listens(engine: EngineSpec, place: Place) -> str:
    last = place.nixl_port + engine.dp_size_local - 1
    nixl = str(place.nixl_port) if last == place.nixl_port else f"{place.nixl_port} to {last}"
    return f"  {engine.name}: HTTP {place.http_port}, NIXL {nixl}, on {HOST}"


def _script(deployment: Deployment, body: str, notes: list[str]) -> str:
    return f"#!/bin/sh\n{header(deployment, *notes)}set -eu\n{body}\n"


def _exec(command: Command) -> str:
    """A command that replaces the shell: a variable a line, then an option with its values a line."""
    lines = ["exec env"]
    lines += [shlex.quote(f"{name}={value}") for name, value in sorted(command.env.items())]
    words: list[str] = []
    for word in command.argv:
        if word.startswith("--") and words:
            lines.append(" ".join(words))
            words = []
        words.append(shlex.quote(word))
    return " \\\n  ".join([*lines, " ".join(words)])


_RUN = """\
{here}
names="{names}"
pids=""
for program in setsid env sleep; do
  command -v "$program" >/dev/null || {{ echo "run.sh: $program is missing (util-linux, coreutils)" >&2; exit 1; }}
done

# Every process below is the first of a session of its own: a signal to that session reaches all that it started.
stop() {{
  trap '' INT TERM HUP
  trap - EXIT
  for signal in TERM KILL; do
    for pid in $pids; do kill -s "$signal" -- "-$pid" 2>/dev/null || kill -s "$signal" "$pid" 2>/dev/null || :; done
    left=20
    while [ "$left" -gt 0 ] && alive; do sleep 0.5; left=$((left - 1)); done
  done
}}
alive() {{
  for pid in $pids; do ! kill -s 0 -- "-$pid" 2>/dev/null || return 0; done
  return 1
}}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

for name in $names; do
  setsid sh "./$name.sh" >"$name.log" 2>&1 </dev/null &
  pids="$! $pids"
  echo "$name: process $!, output in $name.log"
done
echo "Ctrl-C stops everything"
while :; do
  for pid in $pids; do
    kill -0 "$pid" 2>/dev/null || {{ echo "run.sh: process $pid ended: see its log; stopping everything" >&2; exit 1; }}
  done
  sleep 1
done"""
