"""`baton up`: a deployment on this machine, from a recipe to a proven address."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from random import SystemRandom
from typing import Annotated

import typer
from rich.console import Console

from baton.base.errors import BatonError, ConfigError, WorkerError
from baton.cli.machine import StateDir, state_root, this_machine
from baton.cli.options import RecipePath, Settings
from baton.engine.one_machine import gateway_arguments
from baton.gateway.app import serve
from baton.local import extra, gpu_engine, gpus, install
from baton.local.clock import Clock
from baton.local.log_lines import last_lines
from baton.local.progress import Progress
from baton.local.run_dir import RunDir
from baton.local.session import Machine, end_run, supervise
from baton.local.state import State
from baton.prove.report import print_verdict
from baton.prove.run import prove_deployment
from baton.prove.verdict import Verdict
from baton.recipe.api_keys import load_api_keys
from baton.recipe.deployment import Deployment, load_deployment
from baton.recipe.workers import WorkersFile, load_workers

BIG_NAME = "deepseek-ai/DeepSeek-R1"
"""what the printed command asks for where it is an alias of the model: the command in everybody's notes works"""

_DEFAULT_RECIPE = Path("recipes/tiny-local.yaml")
_HOPELESS_CRASHES = 3

Port = Annotated[
    int | None, typer.Option("--port", min=0, max=65535, help="The gateway's, over the recipe's.", show_default=False)
]


def up(
    recipe: RecipePath = _DEFAULT_RECIPE,
    settings: Settings = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when it is ready (and proven); it runs on.")] = False,
    port: Port = None,
    fetch: Annotated[bool, typer.Option("--install", help="Install the engine with pip if it is missing.")] = False,
    prove: Annotated[bool, typer.Option("--prove/--no-prove", help="Prove it once it is ready.")] = True,
    state_dir: StateDir = None,
) -> None:
    """Start a deployment on this machine, print its address, prove it, and keep it running until Ctrl-C.

    A recipe for GPUs takes this machine's, those that CUDA_VISIBLE_DEVICES leaves if it is set; one for CPUs its cores.
    Exits 0 when it was ready (and proven, if that was asked), 1 when not, 2 when the recipe or this machine won't do.
    """
    deployment = deployment_of(recipe, port, settings)
    gateway_arguments(deployment, "")  # what no gateway can be told is refused before anything is fetched or started
    keys = deployment.gateway.api_keys
    if keys is not None and keys.file is not None:
        load_api_keys(keys.file)
    run_dir, machine = RunDir(state_root(state_dir), deployment.name), this_machine()
    run_dir.refuse_if_owned()
    other = gpus.fit(deployment, gpus.of_deployment(deployment, machine.env))
    face = _Face(deployment, run_dir, prove=prove)
    if other:
        face.say(f"{other}: nothing is known of how it runs there")
    with face.progress:
        asyncio.run(_ensure(deployment, machine, face.progress, fetch=fetch))
        if detach:
            asyncio.run(_detached(recipe.resolve(), _again(port, settings), run_dir, machine, face))
        else:
            asyncio.run(_attached(recipe.resolve(), deployment, run_dir, machine, face))
    raise typer.Exit(0 if face.good else 1)


def deployment_of(recipe: Path, port: int | None, settings: list[str] | None) -> Deployment:
    """The deployment of a recipe file with fields set, and with another gateway port where one is given.

    Raises   ConfigError
    """
    deployment = load_deployment(recipe, settings)
    if port is None:
        return deployment
    return replace(deployment, gateway=deployment.gateway.model_copy(update={"port": port}))


class _Face:
    """What one `up` tells the person: progress, the address, the verdict."""

    def __init__(self, deployment: Deployment, run_dir: RunDir, *, prove: bool) -> None:
        self.console = Console(highlight=False)
        self.progress = Progress(self.console, time.time)
        self.good = False
        self._deployment = deployment
        self._run_dir = run_dir
        self._prove = prove

    def leftovers(self, names: list[str]) -> None:
        """Tell what an earlier run had left."""
        self.say(f"ended what an earlier run had left: {', '.join(names)}")

    async def ready(self, workers: WorkersFile, gateway_url: str) -> None:
        """Print the address and a command; then prove."""
        self.say(f"\nready at {gateway_url}/v1\n\n{curl_command(self._deployment, gateway_url)}\n")
        if not self._prove:
            self.good = True
            return
        self.say("proving it: is it really disaggregated, and are the tokens right?")
        try:
            verdict = await self._proven(workers, gateway_url)
        except BatonError as error:
            self.say(f"NOT PROVEN: the proof could not be finished: {error}")
            return
        print_verdict(self.console, verdict)
        self.good = verdict.proven

    async def _proven(self, workers: WorkersFile, gateway_url: str) -> Verdict:
        """The proof, through the deployment's gateway; where that asks for keys, of which only hashes are here, through
        one of the proof's own that asks for none."""
        if self._deployment.gateway.api_keys is None:
            return await prove_deployment(workers, gateway_url, random=SystemRandom())
        self.say("the gateway asks for API keys: the proof goes through a gateway of its own, over the same engines")
        async with serve(
            workers,
            "127.0.0.1",
            0,
            random=SystemRandom(),
            started_at_s=time.time(),
            request_timeout_s=self._deployment.gateway.request_timeout_s,
            max_body_bytes=self._deployment.gateway.max_body_bytes,
        ) as (_, own_url):
            return await prove_deployment(workers, own_url, random=SystemRandom())

    def say(self, text: str) -> None:
        """Print plain text, above the progress."""
        self.console.print(text, markup=False, soft_wrap=True)


def curl_command(deployment: Deployment, gateway_url: str) -> str:
    """A command that a person can paste to get a first answer."""
    port = gateway_url.rpartition(":")[2]
    host = deployment.gateway.host
    local = host in ("127.0.0.1", "0.0.0.0", "::", "::1")
    address = f"http://localhost:{port}" if local else gateway_url
    model = deployment.model
    body = {
        "model": BIG_NAME if BIG_NAME in model.aliases else model.name,
        "messages": [{"role": "user", "content": deployment.test.prompt}],
        "max_tokens": deployment.test.max_tokens,
    }
    key = "'Authorization: Bearer dummy'"
    if deployment.gateway.api_keys is not None:
        key = '"Authorization: Bearer $KEY"'
    return (
        f"curl -sS {address}/v1/chat/completions -H 'Content-Type: application/json' "
        f"-H {key} \\\n"
        f"  -d {shlex.quote(json.dumps(body, separators=(',', ':')))}"
    )


async def _ensure(deployment: Deployment, machine: Machine, progress: Progress, *, fetch: bool) -> None:
    if deployment.hardware.accelerator == "cpu":
        await ensure_engine(machine, progress, fetch=fetch)
    else:
        await ensure_gpu_engine(machine, progress, deployment.engine_version, fetch=fetch)


async def ensure_engine(machine: Machine, progress: Progress, *, fetch: bool) -> None:
    """Have vLLM for CPUs and NIXL in this environment, repaired.

    Raises   ConfigError if they are missing and may not be fetched; WorkerError if pip fails
    """
    environment = install.Environment.of(Path(machine.python))
    chosen = install.has_real_vllm(environment)  # built or chosen by the person: left as it is
    wanted = [] if chosen else extra.missing(extra.requirements(), extra.installed_version)
    if wanted and not fetch:
        raise ConfigError(
            f"the engine is not installed: {', '.join(wanted)} missing from {machine.python}'s environment; "
            "run `make up`, or `baton up --install`"
        )
    if wanted:
        await _pip(machine, progress, wanted, advice=extra.NO_CPU_TORCH)
    install.repair(environment.python)


async def ensure_gpu_engine(machine: Machine, progress: Progress, version: str, *, fetch: bool) -> None:
    """Have vLLM of a release and NIXL in this environment.

    Raises   ConfigError if they are missing and may not be fetched, or another release is there; WorkerError if pip
             fails
    """
    wanted = gpu_engine.missing(version, extra.installed_version, machine.python)
    if wanted and not fetch:
        raise ConfigError(
            f"the engine is not installed: {', '.join(wanted)} missing; run `baton up --install`, or "
            f"{gpu_engine.command(machine.python, wanted)}"
        )
    if wanted:
        await _pip(machine, progress, wanted)


async def _pip(machine: Machine, progress: Progress, wanted: list[str], *, advice: str = "") -> None:
    since = time.time()
    progress.show_installing("", since)
    await extra.pip_install(
        machine.python,
        wanted,
        env=machine.env,
        on_line=lambda line: progress.show_installing(line, since),
        advice=advice,
    )
    progress.installed()


async def _attached(recipe: Path, deployment: Deployment, run_dir: RunDir, machine: Machine, face: _Face) -> None:
    await supervise(
        deployment,
        recipe,
        run_dir,
        machine,
        unique=SystemRandom().randbytes(6).hex(),
        clock=Clock(),
        on_leftovers=face.leftovers,
        on_change=face.progress.show,
        on_ready=face.ready,
    )


def _again(port: int | None, settings: list[str] | None) -> list[str]:
    """The options that make another process read the same deployment."""
    given = [] if port is None else ["--port", str(port)]
    return given + [f"--set={setting}" for setting in settings or []]


async def _detached(recipe: Path, options: list[str], run_dir: RunDir, machine: Machine, face: _Face) -> None:
    """Start the supervisor in a session of its own, watch it until it is ready, prove it, and leave."""
    argv = [machine.python, "-m", "baton", "supervise", str(recipe), "--state-dir", str(run_dir.folder.parent)]
    output = run_dir.write("supervisor.log", "")
    with output.open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - it must outlive this loop
            [*argv, *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=dict(machine.env),
        )
    try:
        state = await _until_ready(process, run_dir, face.progress, output)
        await face.ready(load_workers(state.workers_file), state.gateway_url)
    except BaseException:
        await asyncio.shield(end_run(run_dir, machine.temp, Clock()))
        raise
    face.say("it runs on: look with `baton status` and `baton logs -f`, stop it with `baton down`")


async def _until_ready(process: subprocess.Popen[bytes], run_dir: RunDir, progress: Progress, output: Path) -> State:
    while process.poll() is None:
        state = run_dir.read_state()
        if state is not None and state.supervisor.pid == process.pid:
            progress.show(state)
            if state.ready:
                return state
            hopeless = [child.name for child in state.children if child.num_crashes >= _HOPELESS_CRASHES]
            if hopeless:
                raise WorkerError(
                    f"{', '.join(hopeless)} crashed {_HOPELESS_CRASHES} times before it was ready; gave up"
                )
        await asyncio.sleep(0.25)
    said = "\n".join(last_lines(output, 30)).removeprefix("baton: ")
    kind = ConfigError if process.returncode == 2 else WorkerError
    raise kind(said or f"the supervisor ended with exit code {process.returncode} and said nothing")
