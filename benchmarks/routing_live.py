"""The question of routing.py, asked of the real gateway: sockets, streams, and stand-in engines in place of a model.

Four prefill and four decode ranks of `baton engine stand-in` with the step times of routing_ranks.R1_ON_H200, divided
by `--speed`; the gateway runs in this process with one policy after another, and sessions of trace.py talk to it. One
token is one byte there, so a prompt has as many bytes as the trace has tokens. Not deterministic: two runs differ as
two hours of one service do.

    python benchmarks/routing_live.py                  # four policies, 3 minutes each
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from time import monotonic, process_time
from trace import WORKLOADS, Session, generate

import msgspec
import uvloop
from routing import OURS, POLICIES, TPOT_S, TTFT_S, Figures, demanding, figures, table
from routing_ranks import R1_ON_H200
from routing_sim import Outcome, Record, Setting

from baton.engine.client import HttpClient
from baton.engine.origin import Origin
from baton.gateway.app import Gateway, serve
from baton.policy.admission import Admission
from baton.policy.prefix_index import PrefixIndex
from baton.recipe.recipe import Role
from baton.recipe.workers import Worker, WorkersFile

MODEL = "deepseek-r1"
SPEED = R1_ON_H200
STEP_TIME = {
    "base_s": SPEED.step_s,
    "per_prefill_token_s": SPEED.prefill_token_s,
    "per_prefill_context_token_s": SPEED.prefill_token_context_s,
    "per_running_s": SPEED.sequence_s,
    "per_context_token_s": SPEED.context_token_s,
}
PREFILL_STEP_TIME = STEP_TIME | {"base_s": SPEED.prefill_step_s}
FLAGS = [
    "--max-model-len", "131072", "--block-size", str(SPEED.block_tokens), "--data-parallel-size", "4",
    "--num-gpu-blocks-override", str(SPEED.kv_tokens // SPEED.block_tokens), "--max-num-seqs", str(SPEED.max_sequences),
    "--max-num-batched-tokens", str(SPEED.max_batched_tokens), "--enable-prompt-tokens-details", "--enable-scale-out",
    "--kv-transfer-config", '{"kv_connector":"NixlConnector","kv_role":"kv_both"}',
]  # fmt: skip
"""of both pools"""


@contextlib.contextmanager
def engines(speed: float, first_port: int) -> Iterator[WorkersFile]:
    """Two servers of four ranks each, gone after the block; each takes ten ports."""
    running, workers = [], []
    try:
        for place, (role, steps) in enumerate(((Role.PREFILL, PREFILL_STEP_TIME), (Role.DECODE, STEP_TIME))):
            port = first_port + 10 * place
            argv = [sys.executable, "-m", "baton", "engine", "stand-in", "--speed", str(speed)]
            argv += [
                "--step-time",
                json.dumps(steps),
                "serve",
                MODEL,
                "--host",
                "127.0.0.1",
                "--port",
                str(port),
                *FLAGS,
            ]
            env = {**os.environ, "VLLM_NIXL_SIDE_CHANNEL_PORT": str(port + 1)}
            running.append(subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL))
            workers.append(
                Worker(
                    name=role, role=role, url=f"http://127.0.0.1:{port}", dp_ranks=(0, 1, 2, 3),
                    max_num_seqs=SPEED.max_sequences,
                )
            )  # fmt: skip
        yield WorkersFile(model=MODEL, workers=tuple(workers))
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


@lru_cache(maxsize=64)
def text(name: str, num_tokens: int) -> str:
    """So many letters, the same for the same name."""
    return "".join(Random(name).choices("abcdefghijklmnopqrstuvwxyz     ", k=num_tokens))


class Talk:
    """One session's side of the conversation, at `speed` times its pace."""

    def __init__(self, client: HttpClient, origin: Origin, speed: float, began_s: float) -> None:
        self._client = client
        self._origin = origin
        self._speed = speed
        self._began_s = began_s
        self.records: list[Record] = []

    def now_s(self) -> float:
        """Seconds of the trace."""
        return (monotonic() - self._began_s) * self._speed

    async def run(self, session: Session) -> None:
        """Every turn, each after the answer to the one before."""
        await asyncio.sleep(max(0.0, session.start_s - self.now_s()) / self._speed)
        prompt = text(f"document {session.document}", session.document_tokens)
        for number, turn in enumerate(session.turns):
            if number:
                await asyncio.sleep(turn.think_s / self._speed)
            prompt += text(f"session {session.number} turn {number}", turn.new_tokens)
            prompt += await self._ask(prompt, turn.output_tokens, number)

    async def _ask(self, prompt: str, num_tokens: int, number: int) -> str:
        record = Record(self.now_s(), len(prompt), num_tokens, number)
        self.records.append(record)
        body = {
            "model": MODEL, "prompt": prompt, "max_tokens": num_tokens, "ignore_eos": True, "temperature": 0,
            "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        response = await self._client.send(
            self._origin, "POST", "/v1/completions", {"content-type": "application/json"}, msgspec.json.encode(body)
        )
        raw = b""
        async for chunk in response.chunks():
            if not raw:
                record.ttft_s = self.now_s() - record.at_s
            raw += chunk
        if response.status != 200:
            raise SystemExit(f"the gateway answered {response.status}: {raw[:300].decode(errors='replace')}")
        record.tpot_s = (self.now_s() - record.at_s - record.ttft_s) / max(num_tokens - 1, 1)
        *events, usage = [msgspec.json.decode(event[6:]) for event in raw.split(b"\n\n")[:-2]]
        record.num_cached_tokens = usage["usage"]["prompt_tokens_details"]["cached_tokens"]
        return "".join(event["choices"][0]["text"] for event in events)


async def computed(gateway: Gateway) -> dict[str, float]:
    """Tokens that each rank has computed: of prompts on prefill, of answers on decode."""
    work = {}
    for name, metric in (("prefill", "vllm:prompt_tokens_by_source_total"), ("decode", "vllm:generation_tokens_total")):
        samples = await gateway.pool.workers[name].server.metrics(10.0)
        for rank in range(4):
            more = {"source": "local_compute"} if name == "prefill" else {}
            work[f"{name}-{rank}"] = samples._value(metric, rank, **more) or 0.0
    return work


async def run(
    policy: str, sessions: Sequence[Session], setting: Setting, speed: float, first_port: int
) -> tuple[Figures, float]:
    """One policy over the sessions; its figures, and the CPU seconds of gateway and clients together."""
    index = PrefixIndex(max_blocks=1 << 17)
    live = dataclasses.replace(setting, num_decode=0)  # ranks are the workers file's; their limits are in it
    with engines(speed, first_port) as workers:
        async with serve(
            workers, "127.0.0.1", 0, random=Random(1), started_at_s=0, request_timeout_s=600, max_body_bytes=1 << 24,
            router=POLICIES[policy](index, live), admission=Admission(max_queued=1 << 20, hold_s=float("inf")),
        ) as (gateway, url):  # fmt: skip
            async with asyncio.timeout(60):
                while len(gateway.pool.verified) < 16:  # noqa: ASYNC110 (engines start in their own time)
                    await asyncio.sleep(0.1)
            client = HttpClient()
            talk = Talk(client, Origin.parse(url), speed, monotonic())
            used_s = process_time()
            until_s = setting.warmup_s + setting.measured_s
            talks = [asyncio.create_task(talk.run(session)) for session in sessions]
            await asyncio.wait(talks, timeout=(until_s + setting.drain_s) / speed)
            used_s = process_time() - used_s
            work = await computed(gateway)
            for task in talks:
                task.cancel()
            failed = [e for e in await asyncio.gather(*talks, return_exceptions=True) if isinstance(e, SystemExit)]
            client.close()
            if failed:
                raise failed[0]
    kept = [record for record in talk.records if setting.warmup_s <= record.at_s < until_s]
    return figures(Outcome(kept, work), setting.measured_s), used_s


def main() -> None:
    """Run the policies one after another and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=list(WORKLOADS), default="conversation")
    parser.add_argument("--load", type=float, default=0.6)
    parser.add_argument("--speed", type=float, default=4.0)
    parser.add_argument("--first-port", type=int, default=18300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--policies", type=lambda names: names.split(";"), default=[OURS, "round-robin", "least-loaded", "kv-cost"]
    )
    chosen = parser.parse_args()
    setting = Setting(speed=R1_ON_H200, warmup_s=200, measured_s=400, drain_s=60)
    sessions = demanding(
        lambda rate_per_s: generate(WORKLOADS[chosen.workload], chosen.seed, rate_per_s, 600), chosen.load, setting
    )
    rows = {}
    for policy in chosen.policies:
        found, used_s = uvloop.run(run(policy, sessions, setting, chosen.speed, chosen.first_port))
        rows[policy] = [found]
        print(
            f"{policy}: {found.num_requests} requests measured, {used_s:.0f} s of CPU in gateway and clients",
            file=sys.stderr,
        )
    rate_per_s = rows[chosen.policies[0]][0].num_requests / setting.measured_s
    print(
        f"The real gateway on 4+4 stand-in ranks at {chosen.speed:g} times their pace, {chosen.workload}, load "
        f"{100 * chosen.load:.0f} %, seed {chosen.seed}, {rate_per_s:.2f} requests/s, {setting.measured_s:g} s; "
        f"goodput: TTFT <= {TTFT_S:g} s and TPOT <= {1000 * TPOT_S:g} ms. Hits are told by the engines.\n"
    )
    print(table(rows))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
