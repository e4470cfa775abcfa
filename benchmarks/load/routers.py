"""The routers that are compared: how each is installed, started and named."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from load.fleet import Fleet, answers
from load.processes import Child, Processes

ROOT = Path(__file__).parents[2]
READY_S = 90
ROUTERS = ["sglang-router==0.3.2", "vllm-router==0.1.17"]
DYNAMO = ["ai-dynamo==1.6.1", "ai-dynamo-runtime==1.6.1"]
# A plain install of ai-dynamo wants a package whose published form is a stub: what it needs to run is listed instead.
DYNAMO_NEEDS = [
    "aiohttp>=3.14.3,<4", "certifi", "kubernetes>=32.0.1,<33", "msgspec", "prometheus-client>=0.23.1,<1",
    "pyzmq>=26", "redis>=6.2,<9", "tqdm", "transformers>=4.56", "typing-extensions", "zstandard>=0.23,<1",
    "pydantic>=2.10.6,<=2.13.5", "uvloop",
]  # fmt: skip


@dataclass(kw_only=True)
class Router:
    """One row of the table."""

    name: str
    label: str
    port: int
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)
    companions: list[list[str]] = field(default_factory=list)
    model: str = "m"
    paced_model: str = "m"
    clients: int = 16
    memory_share: float = 1.0
    is_comparable: bool = True
    reason: str = ""
    """Why it does not run; empty when it does."""
    child: Child | None = None
    others: list[Child] = field(default_factory=list)

    def start(self, processes: Processes, core: int, others_core: int) -> None:
        self.others = [processes.spawn(others_core, command, self.env) for command in self.companions]
        self.child = processes.spawn(core, self.command, self.env)

    def wait(self, deadline_s: float) -> None:
        """Wait until it serves, or say in `reason` why it does not."""
        assert self.child is not None
        for model in dict.fromkeys([self.model, self.paced_model]):
            while why := answers(self.port, model):
                ended = next((c for c in [self.child, *self.others] if c.process.poll() is not None), None)
                if ended or time.monotonic() > deadline_s:
                    self.reason = f"{why}; {(ended or self.child).last_words()}"
                    return
                time.sleep(0.3)


def install(folder: Path, name: str, *steps: list[str]) -> tuple[Path, str]:
    """The Python of a virtual environment with packages in it, and why it cannot be had (empty when it can)."""
    home = folder / name
    python, mark = home / "bin" / "python", home / "installed.json"
    if mark.exists() and json.loads(mark.read_text()) == list(steps):
        return python, ""
    print(f"installing {' '.join(steps[0])} into {home}", flush=True)
    commands = [[sys.executable, "-m", "venv", str(home)], *([str(python), "-m", "pip", "install", *s] for s in steps)]
    for command in commands:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            lines = [line for line in (ran.stderr or ran.stdout).splitlines() if line.startswith("ERROR")] or ["failed"]
            return python, f"not installed: {lines[0][:200]}"
    mark.write_text(json.dumps(steps))
    return python, ""


def ours(fleet: Fleet, folder: Path, port: int) -> list[Router]:
    """baton, and the floor."""
    workers = folder / "workers.yaml"
    roles = [("prefill", fleet.prefill_ports), ("decode", fleet.decode_ports)]
    lines = [
        f"  - {{name: {role}-{i}, role: {role}, url: 'http://127.0.0.1:{at}'}}"
        for role, ports in roles
        for i, at in enumerate(ports)
    ]
    workers.write_text("\n".join(["baton: 1", "model: m", "workers:", *lines, ""]))
    floor = [sys.executable, str(Path(__file__).with_name("floor.py")), str(port)]
    floor += [",".join(map(str, ports)) for _, ports in roles]
    baton = [sys.executable, "-m", "baton", "gateway", "--workers", str(workers), "--port"]
    return [
        Router(name="floor", label="floor: bytes forwarded, nothing parsed (uvloop)", port=port, command=floor),
        Router(
            name="baton", label="**baton gateway**, P/D, prefix-aware", port=port + 1, command=[*baton, str(port + 1)]
        ),
        Router(
            name="baton-fronts",
            label="baton gateway, 2 fronts and a router process on one core",
            port=port + 2,
            command=[*baton, str(port + 2), "--processes", "2"],
        ),
    ]


def rust(fleet: Fleet, peers: Path, port: int) -> list[Router]:
    """sglang-router and vllm-router."""
    python, reason = install(peers, "routers", ROUTERS)
    prefill = [f"http://127.0.0.1:{at}" for at in fleet.prefill_ports]
    decode = [f"http://127.0.0.1:{at}" for at in fleet.decode_ports]
    whole = [f"http://127.0.0.1:{at}" for at in fleet.whole_ports]
    sglang = [str(python), "-m", "sglang_router.launch_router", "--worker-startup-check-interval", "1"]
    sglang += ["--max-concurrent-requests", "-1"]
    sglang_pd = ["--pd-disaggregation"]
    for index, url in enumerate(prefill):
        sglang_pd += ["--prefill", url, str(port + 20 + index)]
    vllm = [str(python.with_name("vllm-router")), "--max-concurrent-requests", "8192", "--vllm-pd-disaggregation"]
    for url in prefill:
        vllm += ["--prefill", url]
    for url in decode:
        sglang_pd += ["--decode", url]
        vllm += ["--decode", url]
    rows = [
        ("sglang-pd", "sglang-router 0.3.2, P/D, cache_aware", [*sglang, *sglang_pd, "--policy", "cache_aware"]),
        (
            "sglang-whole",
            "sglang-router 0.3.2, aggregated, cache_aware",
            [*sglang, "--policy", "cache_aware", "--worker-urls", *whole],
        ),
        ("vllm-pd", "vllm-router 0.1.17, P/D, cache_aware", [*vllm, "--policy", "cache_aware"]),
        ("vllm-pd-rr", "vllm-router 0.1.17, P/D, round_robin", [*vllm, "--policy", "round_robin"]),
    ]
    routers = []
    for index, (name, label, command) in enumerate(rows):
        at = ["--host", "127.0.0.1", "--port", str(port + index), "--prometheus-port", str(port + 10 + index)]
        env = {"HF_HUB_OFFLINE": "1"}
        routers.append(
            Router(name=name, label=label, port=port + index, command=[*command, *at], env=env, reason=reason)
        )
    return routers


def dynamo(fleet: Fleet, folder: Path, peers: Path, port: int) -> Router:
    """Dynamo's frontend before its own mocker: it tokenizes and detokenizes, and its engines are not ours."""
    python, reason = install(peers, "dynamo", ["--no-deps", *DYNAMO], DYNAMO_NEEDS)
    model = folder / "model"
    if not reason:
        write_model(model, fleet.words)
    mocker = [str(python), "-m", "dynamo.mocker", "--model-path", str(model), "--discovery-backend", "file"]
    mocker += ["--num-workers", "2", "--block-size", "64", "--num-gpu-blocks-override", "65536"]
    mocker += ["--max-num-seqs", "1024", "--kv-transfer-bandwidth", "0"]
    companions = []
    for index, (name, speedup) in enumerate([("m", "1000"), ("paced", "1")]):
        both = [*mocker, "--model-name", name, "--speedup-ratio", speedup]
        bootstrap = f"{port + 10 + 2 * index},{port + 11 + 2 * index}"
        companions.append([*both, "--disaggregation-mode", "prefill", "--bootstrap-ports", bootstrap])
        companions.append([*both, "--disaggregation-mode", "decode"])
    command = [str(python), "-m", "dynamo.frontend", "--discovery-backend", "file", "--http-host", "127.0.0.1"]
    command += ["--http-port", str(port), "--router-mode", "kv", "--enforce-disagg"]
    env = {"DYN_FILE_KV": str(folder / "kv"), "DYN_DISCOVERY_BACKEND": "file", "HF_HUB_OFFLINE": "1"}
    return Router(
        name="dynamo",
        label="Dynamo 1.6.1 frontend, P/D, kv, its own mocker (not like for like)",
        port=port,
        command=command,
        env=env,
        companions=companions,
        paced_model="paced",
        clients=64,
        memory_share=0.1,
        is_comparable=False,
        reason=reason,
    )


def write_model(folder: Path, words: list[str]) -> None:
    """What Dynamo needs of a model: tiny-r1's config, and a tokenizer whose tokens are the words of the prompts.

    tiny-r1's own tokenizer has 1,024 tokens, mostly parts of characters: a mocker's random ones make few events.
    """
    config = json.loads((ROOT / "models/tiny-r1/checkpoint/config.json").read_text())
    sizes = {"vocab_size": len(words) + 2, "max_position_embeddings": 131072, "eos_token_id": 0, "bos_token_id": 0}
    vocabulary = {word: index for index, word in enumerate(["<eos>", "<unk>", *words])}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 0, "content": "<eos>", **special}, {"id": 1, "content": "<unk>", **special}],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "unk_token": "<unk>"}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**config, **sizes}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "chat_template": template}))
