"""A real Kubernetes API server with its store, on loopback: no nodes and no controllers, only what judges objects.

It is 1.20, so newer kinds and fields are not known to it. Other copies may run at the same time: ports are whatever is
free, the state is in a folder of its own, and both processes end with the one that started them, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from support import beside, crds
from support.objects import Object

START_S = 60.0
"""of two processes on a machine that does other things too; 5 s where it does not"""
_PROGRAMS = ("etcd", "kube-apiserver")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a dry run says: the objects as the server would keep them, and its words on those it would not."""

    accepted: list[Object]
    errors: str

    @property
    def names(self) -> set[tuple[str, str]]:
        """Kind and name of every object that would be kept."""
        return {(each["kind"], each["metadata"]["name"]) for each in self.accepted}


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A running server; `kubeconfig` is what kubectl needs to talk to it as its administrator."""

    kubeconfig: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment in which kubectl, or what starts it, talks to this server and keeps nothing in HOME."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent)}

    def kubectl(self, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl against it, `given` on its standard input."""
        return subprocess.run(
            [beside.kubectl(), *words], input=given, env=self.env, capture_output=True, text=True, check=False,
            timeout=120,
        )  # fmt: skip

    def namespace(self, name: str) -> None:
        """Really make a namespace: a dry run of what is in one needs it."""
        each = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        done = self.kubectl("apply", "-f", "-", given=_list([each]))
        assert done.returncode == 0, done.stderr

    def dry_run(self, objects: Sequence[Object]) -> Answer:
        """Hold objects against it as `kubectl apply --dry-run=server` does.

        Unknown fields are not its business: schemas of this century check those.
        """
        words = ("apply", "--dry-run=server", "--validate=false", "-o", "json", "-f", "-")
        done = self.kubectl(*words, given=_list(objects))
        found = json.loads(done.stdout) if done.stdout.strip() else {"items": []}
        return Answer(found.get("items", [found]), done.stderr)


@contextlib.contextmanager
def running(state: Path) -> Iterator[ApiServer]:
    """Start a server that knows the custom kinds there are here; it ends with the block. `state` is an empty folder.

    Skips the test where there is none to start.
    """
    beside.kubectl()
    programs = _programs(beside.folder("k8s", "BATON_K8S"))
    token = secrets.token_hex(16)
    _keys(state, token)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        port = _start(programs, state, processes, token)
        server = ApiServer(_kubeconfig(state, port, token))
        definitions = _list([_bare(each) for each in crds.definitions()])
        for words in (
            ("create", "--validate=false", "-f", "-"),
            ("wait", "--for=condition=established", "--timeout=30s", "crd", "--all"),
        ):
            done = server.kubectl(*words, given=definitions)
            assert done.returncode == 0, done.stderr[:2000]
        yield server
    finally:
        for process in processes:
            process.kill()  # nothing of theirs is kept
            process.wait()


def _programs(packed: Path) -> dict[str, Path]:
    """The programs, unpacked once into the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "baton" / "k8s"
    cache.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in _PROGRAMS:
        source = packed / "bin" / f"{name}.xz"
        stamp = source.stat()
        found[name] = cache / f"{name}-{stamp.st_size}-{int(stamp.st_mtime)}"
        if not found[name].exists():
            partial = cache / f"{name}.{os.getpid()}"
            partial.write_bytes(lzma.decompress(source.read_bytes()))
            partial.chmod(0o755)
            partial.rename(found[name])
    return found


def _keys(state: Path, token: str) -> None:
    (state / "pki").mkdir()
    subprocess.run(["openssl", "genrsa", "-out", str(state / "pki/sa.key"), "2048"], check=True, capture_output=True)
    (state / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n', encoding="utf-8")


def _start(programs: dict[str, Path], state: Path, processes: list[subprocess.Popen[bytes]], token: str) -> int:
    """Start both, and again on other ports if somebody took one of theirs; return the server's port."""
    for attempt in range(3):
        client, peer, port = _free_ports(3)
        store = f"http://127.0.0.1:{client}"
        between = f"http://127.0.0.1:{peer}"
        started = [
            _process(
                state, programs["etcd"], f"--data-dir={state}/etcd-{attempt}", f"--listen-client-urls={store}",
                f"--advertise-client-urls={store}", f"--listen-peer-urls={between}", "--unsafe-no-fsync",
                f"--initial-advertise-peer-urls={between}", f"--initial-cluster=default={between}",
            ),
            _process(
                state, programs["kube-apiserver"], f"--etcd-servers={store}", f"--secure-port={port}",
                f"--cert-dir={state}/pki", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
                "--insecure-port=0", f"--token-auth-file={state}/tokens.csv", "--authorization-mode=RBAC",
                "--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={state}/pki/sa.key",
                f"--service-account-signing-key-file={state}/pki/sa.key",
                "--disable-admission-plugins=ServiceAccount,PodSecurityPolicy",
            ),
        ]  # fmt: skip
        processes += started
        if _ready(port, started, token):
            return port
        for process in started:
            process.kill()
    raise AssertionError(f"no API server in three attempts; its last words are in {state}/*.log")


def _process(state: Path, program: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a program that the kernel ends with this one (util-linux, setpriv)."""
    with (state / f"{program.name}.log").open("ab") as log:
        command = ["setpriv", "--pdeathsig", "KILL", program, *words]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=state)


def _ready(port: int, started: Sequence[subprocess.Popen[bytes]], token: str) -> bool:
    """Wait until it answers; False if one of the two ended."""
    end = time.monotonic() + START_S
    with httpx.Client(verify=False, headers={"Authorization": f"Bearer {token}"}, timeout=5) as client:
        while time.monotonic() < end and all(process.poll() is None for process in started):
            with contextlib.suppress(httpx.HTTPError):
                if client.get(f"https://127.0.0.1:{port}/readyz").text == "ok":
                    return True
            time.sleep(0.1)
    return False


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _kubeconfig(state: Path, port: int, token: str) -> Path:
    path = state / "kubeconfig"
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority": str(state / "pki/apiserver.crt")}
    path.write_text(
        json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        }),
        encoding="utf-8",
    )  # fmt: skip
    path.chmod(0o600)
    return path


def _bare(definition: Object) -> Object:
    """A definition without its descriptions, most of its size, and with no default empty: 1.20 takes that for null.

    Nor does it ask an operator's webhook to convert: there is none.
    """

    def bare(node: Any, is_names: bool = False) -> Any:
        if isinstance(node, list):
            return [bare(entry) for entry in node]
        if not isinstance(node, dict):
            return node
        if not is_names and node.get("default") == "":
            node = {**node, "default": "unnamed"}
        return {
            key: bare(entry, is_names=key == "properties" and not is_names)
            for key, entry in node.items()
            if is_names or key != "description"
        }

    spec = {key: value for key, value in definition["spec"].items() if key != "conversion"}
    found: Object = bare({"spec": spec, **{key: definition[key] for key in ("apiVersion", "kind", "metadata")}})
    return found


def _list(objects: Sequence[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
