"""The program that runs inside the engine's own Python: one vLLM engine in this process, every step timed.

    python probe.py JOB.json

Reads one job and writes events, a JSON object a line, into the job's `out`, each as soon as it is known: what is cut
off loses nothing. Needs vLLM and the standard library only, so that the engine's environment need not have baton.

Why a step's time is right: the engine core runs here, without a server, and one step ends where the scheduler takes
the model's output (`update_from_output`), the only place where all releases wait for the GPU. Asynchronous scheduling
stays as it is, so its overlap counts. Context for decode is not computed: vLLM's own DecodeBenchConnector fills it.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import os
import random
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

VOCABULARY_FROM = 3
"""ids below this are begin, end and padding of the models here"""
IDLE_CALLS = 1000
"""calls without a step after which the scheduler is stuck; asynchronous scheduling needs two"""


def main() -> int:
    """Run the job that the first argument names; 0 if every point was measured or said not to fit."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # whoever waits in vain may ask where
    with Path(job["out"]).open("a", encoding="utf-8") as sink:
        return Probe(job, sink).run()


class Probe:
    """One job: an engine, and the points to measure on it."""

    def __init__(self, job: dict[str, Any], sink: Any) -> None:
        self._job, self._sink = job, sink
        self._start_s = time.monotonic()
        self._chance = random.Random(job.get("seed", 0))
        self._is_decode = False
        self._num_requests = 0

    def run(self) -> int:
        """Start the engine and measure point after point; what fails is an event with its phase."""
        phase = "flags"
        try:
            engine_args = self._engine_args()
            phase = "start"
            self._start(engine_args)
            for at, point in enumerate(self._job["points"]):
                phase = "step"
                if time.monotonic() - self._start_s > self._job["deadline_s"]:
                    for left in self._job["points"][at:]:
                        self._say("skipped", **left, reason="out of time")
                    break
                self._measure(point)
        except SystemExit as error:  # vLLM's parser ends the process
            self._say("failed", phase=phase, kind="SystemExit", message=str(error.code))
            return 2
        except BaseException as error:  # noqa: BLE001 - the edge of this process: every fault is an answer
            text = "".join(traceback.format_exception(error))
            self._say("failed", phase=phase, kind=type(error).__name__, message=str(error), traceback=text[-6000:])
            return 3
        self._say("end")
        return 0

    # the engine -------------------------------------------------------------------------------------------------------

    def _engine_args(self) -> Any:
        """Flags as `vllm serve` takes them, read by the engine's own parser.

        Raises   SystemExit as the parser does; what it says goes to stderr
        """
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        arg_utils = importlib.import_module("vllm.engine.arg_utils")
        try:
            parser_of = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser
        except ImportError:
            parser_of = importlib.import_module("vllm.utils").FlexibleArgumentParser
        parser = arg_utils.AsyncEngineArgs.add_cli_args(parser_of())
        found, unknown = parser.parse_known_args(self._job["argv"])
        if unknown:  # of the server in front, or none: only the whole parser can tell
            try:
                of_server = importlib.import_module("vllm.entrypoints.launchers.cli_args")
            except ImportError:  # before 0.32
                of_server = importlib.import_module("vllm.entrypoints.openai.cli_args")
            found = of_server.make_arg_parser(parser_of()).parse_args(self._job["argv"])
        return arg_utils.EngineArgs.from_cli_args(argparse.Namespace(**vars(found)))

    def _start(self, engine_args: Any) -> None:
        torch, vllm = importlib.import_module("torch"), importlib.import_module("vllm")
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        memory = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
        self._say("starting", vllm=vllm.__version__, torch=torch.__version__, gpu=gpu, gpu_bytes=memory)
        began = time.monotonic()
        engine = importlib.import_module("vllm.v1.engine.llm_engine").LLMEngine.from_engine_args(engine_args)
        self._engine, self._client = engine, engine.engine_core
        self._core = self._client.engine_core
        self._scheduler = self._core.scheduler
        loaded = self._core.model_executor.collective_rpc(
            prepare, args=(self._job["routing"], self._job.get("seed", 0))
        )
        config = engine.vllm_config
        self._kv_tokens = config.cache_config.num_gpu_blocks * config.cache_config.block_size
        self._cuts_prompts = bool(config.scheduler_config.enable_chunked_prefill)
        self._largest_chunk = config.scheduler_config.max_num_batched_tokens
        self._vocabulary = config.model_config.get_vocab_size()
        self._steps: list[tuple[float, int, int]] = []
        self._watch()
        self._say(
            "up", seconds=time.monotonic() - began, kv_tokens=self._kv_tokens, model=loaded[0],
            async_scheduling=bool(config.scheduler_config.async_scheduling),
            max_num_seqs=config.scheduler_config.max_num_seqs, max_num_batched_tokens=self._largest_chunk,
            max_model_len=config.model_config.max_model_len, kv_dtype=str(config.cache_config.cache_dtype),
        )  # fmt: skip

    def _watch(self) -> None:
        """Note when each step ends; let prefill points compute their prompts although a connector would fill them."""
        update, scheduler = self._scheduler.update_from_output, self._scheduler

        def noted(scheduled: Any, output: Any) -> Any:
            if scheduled.total_num_scheduled_tokens:
                step = (time.perf_counter(), scheduled.total_num_scheduled_tokens, len(scheduled.num_scheduled_tokens))
                self._steps.append(step)
            return update(scheduled, output)

        scheduler.update_from_output = noted
        if getattr(scheduler, "connector", None) is not None:
            matched = scheduler.connector.get_num_new_matched_tokens
            scheduler.connector.get_num_new_matched_tokens = lambda request, computed: (
                matched(request, computed) if self._is_decode else (0, False)
            )

    # points -----------------------------------------------------------------------------------------------------------

    def _measure(self, point: dict[str, Any]) -> None:
        reason = self._misfit(point)
        if reason:
            self._say("skipped", **point, reason=reason)
            return
        began = time.monotonic()
        found = self._decode(point) if point["role"] == "decode" else self._prefill(point)
        self._drain()
        self._say("point", **point, **found, wall_s=time.monotonic() - began)

    def _misfit(self, point: dict[str, Any]) -> str:
        if point["role"] == "decode":
            needed = point["batch"] * (point["context"] + point["warm_steps"] + point["steps"] + 2 * 64)
            if needed > self._kv_tokens:
                return f"does not fit: needs KV of {needed} tokens, and there is room for {self._kv_tokens}"
        elif point["chunk"] > self._largest_chunk:
            return f"does not fit: max-num-batched-tokens is {self._largest_chunk}"
        elif point["isl"] > point["chunk"] and not self._cuts_prompts:
            return "does not fit: this engine does not cut prompts (chunked prefill is off)"
        elif max(point["isl"], point["chunk"]) + 64 > self._kv_tokens:
            return f"does not fit: room for KV of {self._kv_tokens} tokens"
        return ""

    def _decode(self, point: dict[str, Any]) -> dict[str, Any]:
        self._is_decode = True
        warm, timed = point["warm_steps"], point["steps"]
        for _ in range(point["batch"]):
            self._add(point["context"], 2 * (warm + timed) + 16)
        start = time.perf_counter()
        self._steps.clear()
        self._step_until(lambda: len(self._steps) >= 1 + warm + timed)
        ends = [step[0] for step in self._steps][: 1 + warm + timed]
        gaps = [after - before for before, after in pairwise(ends)]
        kept = self._steps[1 + warm : 1 + warm + timed]
        return {
            **_spread(gaps[warm:]), "first_s": max([ends[0] - start, *gaps[:warm]]),
            "requests_a_step": statistics.median(step[2] for step in kept),
            "tokens_a_step": statistics.median(step[1] for step in kept),
            "mean_context": point["context"] + warm + timed / 2,
        }  # fmt: skip

    def _prefill(self, point: dict[str, Any]) -> dict[str, Any]:
        """A round is one step, or all steps of one prompt that is longer than a chunk."""
        self._is_decode = False
        chunk, isl = point["chunk"], point["isl"]
        steps_a_round, prompts_a_round = max(1, -(-isl // chunk)), max(1, chunk // isl)
        rounds = 1 + point["steps"]
        before, self._scheduler.max_num_scheduled_tokens = self._scheduler.max_num_scheduled_tokens, chunk
        try:
            for _ in range(rounds * prompts_a_round):
                self._add(isl, 1)
            start = time.perf_counter()
            self._steps.clear()
            self._step_until(lambda: sum(step[1] for step in self._steps) >= rounds * prompts_a_round * isl)
        finally:
            self._scheduler.max_num_scheduled_tokens = before
        ends = [step[0] for step in self._steps][steps_a_round - 1 :: steps_a_round]
        gaps = [(after - before) / steps_a_round for before, after in pairwise(ends)]
        kept = self._steps[steps_a_round:]
        return {
            **_spread(gaps), "first_s": (ends[0] - start) / steps_a_round,
            "requests_a_step": statistics.median(step[2] for step in kept),
            "tokens_a_step": sum(step[1] for step in kept) / len(kept), "mean_context": isl / 2,
        }  # fmt: skip

    def _step_until(self, is_done: Callable[[], bool]) -> None:
        """Step the engine; raises RuntimeError if it schedules nothing any more."""
        idle = 0
        while not is_done():
            before = len(self._steps)
            self._client.get_output()
            idle = 0 if len(self._steps) > before else idle + 1
            if idle > IDLE_CALLS:
                raise RuntimeError(f"the scheduler ran nothing in {idle} calls: requests wait for KV or are not cut")

    def _add(self, num_tokens: int, max_tokens: int) -> None:
        params_of = importlib.import_module("vllm").SamplingParams
        self._num_requests += 1
        ids = [self._chance.randrange(VOCABULARY_FROM, self._vocabulary) for _ in range(num_tokens)]
        # Drawn, not the likeliest: all rows would get one token, and the experts of a layer one load.
        params = params_of(max_tokens=max_tokens, ignore_eos=True, detokenize=False, temperature=1.0)
        self._engine.add_request(f"r{self._num_requests}", {"prompt_token_ids": ids}, params)

    def _drain(self) -> None:
        """End what is left, and take what is under way off the GPU."""
        self._core.abort_requests(list(self._scheduler.requests))
        while self._scheduler.has_requests() or getattr(self._core, "batch_queue", None):
            self._client.get_output()

    def _say(self, event: str, **what: Any) -> None:
        self._sink.write(json.dumps({"event": event, "at_s": time.monotonic() - self._start_s, **what}) + "\n")
        self._sink.flush()


def _spread(seconds: list[float]) -> dict[str, Any]:
    """Return median and quartiles of step times."""
    quartiles = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return {"step_s": statistics.median(seconds), "p25_s": quartiles[0], "p75_s": quartiles[2], "n": len(seconds)}


def prepare(worker: Any, routing: dict[str, Any], seed: int) -> dict[str, Any]:
    """Give a worker's dummy weights what timing depends on: bits in FP8 weights, and a router that spreads tokens.

    vLLM draws dummy weights from +-1e-3: in FP8 nearly all of them are zero, which draws less power and runs at higher
    clocks than real ones, and the router's correction bias outweighs its logits, so that all tokens choose the same
    experts. routing: {"kind": "balanced"}, or {"kind": "zipf", "exponent": s}: expert i's score is raised by the
    logarithm of (i + 1) ** -s, in an order of its own in each layer.
    """
    import torch  # noqa: PLC0415 - an engine process has it

    model = worker.model_runner.model
    chance = torch.Generator(device=next(model.parameters()).device).manual_seed(seed)
    num_fp8 = 0
    for parameter in model.parameters():
        if parameter.dtype is torch.float8_e4m3fn:
            num_fp8 += parameter.numel()
            _randomise(parameter.data, chance)
    num_routers = 0
    for module in model.modules():
        gate, norm = (
            getattr(getattr(module, "mlp", None), "gate", None),
            getattr(module, "post_attention_layernorm", None),
        )
        if gate is None or norm is None or getattr(gate, "weight", None) is None:
            continue
        num_routers += 1
        # Logits of standard deviation near 1: the norm's output has the size of its weight.
        scale = 1.4 / float(norm.weight.data.float().norm())
        with torch.no_grad():
            gate.weight.data.copy_(torch.randn(gate.weight.shape, generator=chance, device=chance.device) * scale)
            bias = getattr(gate, "e_score_correction_bias", None)
            if bias is not None:
                bias.data.copy_(_bias(routing, bias.numel(), chance))
    held = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    used = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    return {"weights_bytes": held, "allocated_bytes": used, "fp8_weights": num_fp8, "routers": num_routers}


def _bias(routing: dict[str, Any], num_experts: int, chance: Any) -> Any:
    import torch  # noqa: PLC0415 - an engine process has it

    if routing["kind"] == "balanced":
        return torch.zeros(num_experts, device=chance.device)
    order = torch.randperm(num_experts, generator=chance, device=chance.device).float()
    # Scores are sigmoids, with a slope of 1/4 in the middle: a quarter of the logarithm moves as much.
    return -0.25 * routing["exponent"] * torch.log(order + 1)


def _randomise(data: Any, chance: Any) -> None:
    """Fill an FP8 tensor with normal values, a piece at a time: a whole one in float32 would not fit beside it."""
    import torch  # noqa: PLC0415 - an engine process has it

    flat = data.view(-1) if data.is_contiguous() else None
    if flat is None:
        data.copy_(torch.randn(data.shape, generator=chance, device=chance.device).to(data.dtype))
        return
    piece = 1 << 26
    for at in range(0, flat.numel(), piece):
        part = flat[at : at + piece]
        part.copy_(torch.randn(part.shape, generator=chance, device=chance.device).to(data.dtype))


if __name__ == "__main__":
    # A kernel of an engine that failed may hang its process: what is known is written, so leave without waiting.
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
