"""Starting the engines of the contract that no deployment starts: vLLM with a prefix cache, and the stand-in.

The stand-in is given vLLM's own command lines: `baton engine stand-in serve MODEL --port ...`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
from contract.engines import CachingEngine, Engine, KvEvents, Pair
from e2e.running import BATON, CHECKPOINT, ROOT, answers, free_port, wait_for

from baton.engine.command import Place, serve_command
from baton.recipe.deployment import resolve
from baton.recipe.recipe import Role, load_recipe

VLLM = (str(Path(sys.executable).with_name("vllm")),)
STAND_IN = (*BATON, "engine", "stand-in")
"""what stands before `serve` and the command line that vLLM would be given"""

GQA = "tiny-gqa"
TOPIC = "kv@here"
MAX_MODEL_LEN = 2048
GQA_BLOCK_SIZE = 32
GQA_NUM_BLOCKS = 80
"""few: a handful of prompts fills the cache, and the next one evicts"""

GQA_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "torch_dtype": "float32",
}


@contextlib.contextmanager
def process(argv: Sequence[str], env: Mapping[str, str], url: str, folder: Path, limit_s: float) -> Iterator[None]:
    """One server in a process group of its own, healthy; gone after the block."""
    scratch = tempfile.mkdtemp(prefix="baton-")  # vLLM's sockets: a killed engine leaves them behind
    output = folder / "engine.log"
    with output.open("wb") as log:
        server = subprocess.Popen(
            argv, env={**os.environ, **env, "TMPDIR": scratch}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(argv[0], lambda: answers(url), server, output, limit_s)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            os.killpg(server.pid, signal.SIGKILL)
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def caching(engine: Engine, port: int, replay_port: int) -> Iterator[CachingEngine]:
    """Subscribed, and heard from: whoever subscribes late misses what was published before."""
    events = KvEvents(port, replay_port)
    try:
        for _ in range(20):
            engine.ask("/v1/completions", prompt=engine.prompt(GQA_BLOCK_SIZE + 1), max_tokens=1)
            with contextlib.suppress(AssertionError):
                events.next(0.5)
                break
        else:
            raise AssertionError("20 new prompts, and no KV event")
        yield CachingEngine(engine, events, TOPIC.encode())
    finally:
        events.close()


@contextlib.contextmanager
def with_prefix_cache(folder: Path, executable: Sequence[str], more: Sequence[str] = ()) -> Iterator[CachingEngine]:
    """A model of two layers with grouped-query attention and random weights: CPU_MLA has no prefix cache."""
    model = folder / "gqa"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(GQA_CONFIG), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(CHECKPOINT / name, model / name)
    port, events_port, replay_port = free_port(), free_port(), free_port()
    events = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://*:{events_port}",
        "replay_endpoint": f"tcp://*:{replay_port}",
        "topic": TOPIC,
    }
    argv = [*executable, "serve", str(model), "--served-model-name", GQA, *more]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--load-format", "dummy", "--dtype", "float32"]
    argv += ["--enforce-eager", "--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs", "16"]
    argv += ["--enable-prefix-caching", "--block-size", str(GQA_BLOCK_SIZE), "--enable-prompt-tokens-details"]
    argv += ["--num-gpu-blocks-override", str(GQA_NUM_BLOCKS), "--kv-events-config", json.dumps(events)]
    env = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "fork",
        "TORCHDYNAMO_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_SERVER_DEV_MODE": "1",  # the route that clears the cache
    }
    url = f"http://127.0.0.1:{port}"
    with (
        process(argv, env, url, folder, 180),
        httpx.Client(base_url=url, timeout=60) as client,
        caching(Engine(client, GQA), events_port, replay_port) as engine,
    ):
        yield engine


@contextlib.contextmanager
def pair_of(executable: tuple[str, ...], folder: Path, lease_s: int) -> Iterator[Pair]:
    """A prefill and a decode engine, by the command lines that `baton up` would write for tiny-local."""
    recipe = ROOT / "recipes/tiny-local.yaml"
    deployment = resolve(load_recipe(recipe), recipe.parent)
    deployment = replace(deployment, kv_transfer=deployment.kv_transfer.model_copy(update={"lease_s": lease_s}))
    with contextlib.ExitStack() as stack:
        engines = []
        for role in (Role.PREFILL, Role.DECODE):
            place = Place(host="127.0.0.1", http_port=free_port(), nixl_port=free_port(), executable=executable)
            command = serve_command(deployment, deployment.of_role(role)[0], place)
            url, logs = f"http://127.0.0.1:{place.http_port}", folder / role
            logs.mkdir()
            stack.enter_context(process(command.argv, command.env, url, logs, 180))
            client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
            engines.append(Engine(client, deployment.model.name))
        yield Pair(*engines, lease_s=lease_s)
