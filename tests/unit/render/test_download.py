"""The program of the download Job, as the Job runs it, against a small hub on loopback."""

import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from baton.render import download

REPO = "deepseek-ai/small"
COMMIT = "56d4cbbb4d29f4355bab4b9a39ccb717a14ad5ad"
OTHER = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret_value"
WEIGHTS = bytes(range(256)) * 4096
FILES = {"config.json": b'{"a": 1}\n', "model-1.safetensors": WEIGHTS, "sub/empty.txt": b""}


@dataclass
class Hub:
    """What a hub answers: the files it lists, what it sends instead, and what it refuses."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    sent: dict[str, list[bytes]] = field(default_factory=dict)
    """bodies sent in place of a file's own, one after another"""
    breaks: dict[str, int] = field(default_factory=dict)
    """how often a connection ends half way through a file"""
    held: threading.Event | None = None
    """bodies of files end when this is set"""
    status: dict[str, tuple[int, str]] = field(default_factory=dict)
    """answers by path's end: a status and the hub's error code"""
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    url: str = ""
    commit: str = COMMIT


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    if hub.held:
        hub.held.set()
    server.shutdown()
    thread.join()
    server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        hub.asked.append(f"{self.command} {path}")
        hub.tokens.add(self.headers.get("Authorization"))
        for end, (status, code) in hub.status.items():
            if path.endswith(end):
                self._send(status, b"{}", {"X-Error-Code": code})
                return
        if path == f"/api/models/{REPO}/revision/{hub.commit}":
            siblings = [_sibling(name, content) for name, content in hub.files.items()]
            answer = {"id": REPO, "modelId": REPO, "sha": hub.commit, "siblings": siblings}
            self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})
            return
        name = path.removeprefix(f"/{REPO}/resolve/{hub.commit}/")
        if name not in hub.files:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        self._send_file(name, hub.files[name])

    def _send_file(self, name: str, content: bytes) -> None:
        headers = {"X-Repo-Commit": self.hub.commit, "ETag": f'"{_etag(name, content)}"'}
        if self.command == "GET" and self.hub.sent.get(name):
            content = self.hub.sent[name].pop(0)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(wanted[1]) if wanted else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, content[start:], headers, name)

    def _send(self, status: int, body: bytes, headers: dict[str, str], name: str = "") -> None:
        self.send_response(status)
        for each in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(*each)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.breaks.get(name, 0):
            self.hub.breaks[name] -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body[:-1] if self.hub.held and name else body)
        if self.hub.held and name:
            self.wfile.flush()
            self.hub.held.wait(30)
            self.close_connection = True


def _is_large(name: str) -> bool:
    return name.endswith(".safetensors")


def _etag(name: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if _is_large(name) else _git(content)


def _git(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _sibling(name: str, content: bytes) -> dict[str, object]:
    found: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": _git(content)}
    if _is_large(name):
        found["lfs"] = {"sha256": _etag(name, content), "size": len(content), "pointerSize": 134}
    return found


def command(folder: Path, repo: str = REPO, revision: str = COMMIT) -> list[str]:
    return [sys.executable, download.__file__, repo, revision, str(folder / "model")]


def environment(hub: Hub, folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return kept | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "home"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "BATON_HF_SECRET": "hf-token-secret",
        "NO_PROXY": "127.0.0.1",
    }


def run(hub: Hub, folder: Path, **asked: str) -> tuple[int, str]:
    done = subprocess.run(
        command(folder, **asked), env=environment(hub, folder), capture_output=True, text=True, check=False, timeout=60
    )
    assert TOKEN not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


def marker(folder: Path) -> dict[str, object] | None:
    path = folder / "model" / download.MARKER
    return json.loads(path.read_text()) if path.exists() else None


def here(folder: Path) -> dict[str, bytes]:
    model = folder / "model"
    return {
        str(path.relative_to(model)): path.read_bytes()
        for path in sorted(model.rglob("*"))
        if path.is_file() and not path.relative_to(model).parts[0].startswith(".")
    }


def gets(hub: Hub) -> list[str]:
    """The files whose content was asked for; an empty one never is."""
    return sorted(asked.rpartition(f"{hub.commit}/")[2] for asked in hub.asked if asked.startswith("GET /deepseek"))


@pytest.fixture
def whole(hub: Hub, tmp_path: Path) -> Path:
    """A folder whose download is done; the hub has forgotten it."""
    code, said = run(hub, tmp_path)
    assert code == 0, said
    hub.asked.clear()
    return tmp_path


def test_everything_is_fetched_verified_and_marked(hub: Hub, tmp_path: Path) -> None:
    code, said = run(hub, tmp_path)
    assert code == 0
    assert here(tmp_path) == FILES
    sizes = {name: len(content) for name, content in FILES.items()}
    assert marker(tmp_path) == {"repo": REPO, "revision": COMMIT, "files": sizes}
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert re.search(r"model-1\.safetensors: fetched in \d+ s, 1048576 bytes, sha256 right; ", said)
    assert "config.json: fetched in 0 s, 9 bytes, git sha1 right; " in said
    assert "3 of 3 files, 1048585 bytes of 1048585 bytes" in said


def test_a_second_run_asks_nobody(hub: Hub, whole: Path) -> None:
    started_s = time.monotonic()
    code, said = run(hub, whole)
    assert (code, hub.asked) == (0, [])
    assert "complete, 3 files; nothing to do" in said
    assert time.monotonic() - started_s < 5


def test_a_broken_connection_is_resumed_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    hub.breaks = {"model-1.safetensors": 1}
    code, _ = run(hub, tmp_path)
    assert code == 0
    assert gets(hub).count("model-1.safetensors") == 2
    assert here(tmp_path) == FILES


def test_the_next_attempt_fetches_only_what_is_missing(hub: Hub, tmp_path: Path) -> None:
    hub.status = {"model-1.safetensors": (400, "")}
    code, said = run(hub, tmp_path)
    assert code == 1
    assert "FAILED: " in said
    assert "model-1.safetensors" in said.splitlines()[-1]
    assert marker(tmp_path) is None
    hub.status.clear()
    hub.asked.clear()
    code, said = run(hub, tmp_path)
    assert code == 0
    assert gets(hub) == ["model-1.safetensors"]
    assert "config.json: here, 9 bytes, git sha1 right" in said


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model-1.safetensors", WEIGHTS[:-1] + b"x"),
        ("config.json", b'{"a": 2}\n'),
        ("config.json", b"longer than it is"),
    ],
)
def test_a_file_that_is_wrong_is_found_and_fetched_anew(hub: Hub, whole: Path, name: str, content: bytes) -> None:
    (whole / "model" / name).write_bytes(content)
    (whole / "model" / download.MARKER).unlink()
    code, said = run(hub, whole)
    assert code == 0
    assert gets(hub) == [name]
    assert here(whole) == FILES
    assert f"{name}: {'17 bytes' if len(content) == 17 else ''}" in said
    assert "fetching it anew" in said


def test_a_file_that_is_gone_makes_the_marker_worthless(hub: Hub, whole: Path) -> None:
    (whole / "model" / "config.json").unlink()
    hub.status = {"config.json": (400, "")}
    code, said = run(hub, whole)
    assert code == 1
    assert "config.json has changed since the download" in said
    assert marker(whole) is None
    hub.status.clear()
    assert run(hub, whole)[0] == 0
    assert here(whole) == FILES


def test_what_arrives_wrong_once_is_fetched_once_more(hub: Hub, tmp_path: Path) -> None:
    hub.sent = {"model-1.safetensors": [WEIGHTS[::-1]]}
    code, said = run(hub, tmp_path)
    assert code == 0
    assert "model-1.safetensors: sha256 " in said
    assert here(tmp_path) == FILES


def test_what_stays_wrong_fails_by_name_and_leaves_no_marker(hub: Hub, tmp_path: Path) -> None:
    hub.sent = {"model-1.safetensors": [WEIGHTS[::-1]] * 10}
    code, said = run(hub, tmp_path)
    assert code == 1
    assert re.search(r"FAILED: model-1\.safetensors: sha256 \w{64}, not \w{64}, after two fetches", said)
    assert marker(tmp_path) is None
    assert sorted(here(tmp_path)) == ["config.json", "sub/empty.txt"]


def test_a_branch_is_refused_before_anything_else(hub: Hub, tmp_path: Path) -> None:
    code, said = run(hub, tmp_path, revision="main")
    assert (code, hub.asked) == (2, [])
    assert "'main': a branch or tag may move; give a commit, 40 digits" in said
    assert not (tmp_path / "model").exists()


def test_another_revision_replaces_the_first(hub: Hub, whole: Path) -> None:
    hub.commit = OTHER
    hub.files = {"config.json": b'{"a": 3}\n', "model-2.safetensors": WEIGHTS[:512]}
    (whole / "model" / "mine.txt").write_text("not of a download")
    code, said = run(hub, whole, revision=OTHER)
    assert code == 0
    assert here(whole) == {**hub.files, "mine.txt": b"not of a download"}
    assert marker(whole) == {"repo": REPO, "revision": OTHER, "files": {"config.json": 9, "model-2.safetensors": 512}}
    assert f"model-1.safetensors: of {REPO} at {COMMIT}, removed" in said
    assert sorted(path.name for path in (whole / "model").glob(".baton*")) == [download.MARKER, ".baton-download.lock"]


def test_no_marker_stands_while_the_folder_changes(hub: Hub, whole: Path) -> None:
    hub.commit, hub.files["config.json"] = OTHER, b"another"
    hub.status = {"config.json": (400, "")}
    assert run(hub, whole, revision=OTHER)[0] == 1
    assert marker(whole) is None


@pytest.mark.parametrize(
    ("where", "status", "code", "said"),
    [
        (COMMIT, 401, "", "the hub answered 401: the token in HF_TOKEN, from Secret hf-token-secret, is not valid"),
        (COMMIT, 403, "", "the hub answered 403: the token in HF_TOKEN, from Secret hf-token-secret, is not valid"),
        (COMMIT, 401, "RepoNotFound", "the hub answered 401: the token in HF_TOKEN, from Secret hf-token-secret, is"),
        (COMMIT, 404, "RepoNotFound", "answered 404: there is no such repository or file, or the token in HF_TOKEN"),
        (COMMIT, 404, "RevisionNotFound", f"{REPO} at {COMMIT}: the repository has no such commit (404)"),
        (COMMIT, 403, "GatedRepo", "a gated repository (403): ask for access on its page"),
        ("model-1.safetensors", 403, "GatedRepo", "model-1.safetensors: a gated repository (403)"),
        ("model-1.safetensors", 403, "", "model-1.safetensors: the hub answered 403: the token in HF_TOKEN, from"),
    ],
)
def test_a_refusal_of_the_hub_is_explained(
    hub: Hub, tmp_path: Path, where: str, status: int, code: str, said: str
) -> None:
    hub.status = {where: (status, code)}
    exit_code, lines = run(hub, tmp_path)
    assert exit_code == 1
    assert lines.splitlines()[-1].startswith("FAILED: ")
    assert said in lines.splitlines()[-1]
    assert marker(tmp_path) is None


def test_a_hub_that_is_not_there_is_said(hub: Hub, tmp_path: Path) -> None:
    hub.url = "http://127.0.0.1:9"
    code, said = run(hub, tmp_path)
    assert code == 1
    assert said.startswith(f"FAILED: {REPO} at {COMMIT}: ")


def test_a_name_outside_the_folder_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.files["../../evil"] = b"x"
    code, said = run(hub, tmp_path)
    assert code == 1
    assert "'../../evil', which lies outside the folder" in said


def test_a_folder_that_may_not_be_written_is_explained(hub: Hub, tmp_path: Path) -> None:
    if os.getuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root may write everywhere, and there is no setpriv to be somebody else")
    inside = tmp_path / "volume"
    inside.mkdir(mode=0o755)
    (tmp_path / "volume").chmod(0o555)
    other = (
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=0", "--clear-groups"] if os.getuid() == 0 else []
    )
    done = subprocess.run(
        [*other, *command(inside)],
        env=environment(hub, tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    inside.chmod(0o755)
    assert done.returncode == 1, done
    assert "may not be written" in done.stdout
    assert f"{inside} is of user {os.getuid()}" in done.stdout
    assert "mode 555" in done.stdout


def test_two_downloads_of_one_folder_make_one(hub: Hub, tmp_path: Path) -> None:
    """The second starts while the first holds the lock, waits, and then has nothing to do."""
    hub.held = threading.Event()
    started = [_start(hub, tmp_path)]
    try:
        _until(lambda: len(gets(hub)) == 2)
        started.append(_start(hub, tmp_path))
        assert started[1].stdout is not None
        assert "another download is at work; waiting for it" in started[1].stdout.readline()
        held, hub.held = hub.held, None
        held.set()
        first, second = (process.communicate(timeout=60)[0] for process in started)
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert [process.returncode for process in started] == [0, 0], (first, second)
    assert "3 files, 1048585 bytes" in first
    assert second.endswith("complete, 3 files; nothing to do\n")
    assert here(tmp_path) == FILES


def test_a_download_that_is_told_to_end_ends_and_the_next_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.held = threading.Event()
    process = _start(hub, tmp_path)
    try:
        _until(lambda: len(gets(hub)) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143
    finally:
        process.kill()
        process.communicate()
    assert marker(tmp_path) is None
    held, hub.held = hub.held, None
    held.set()
    assert run(hub, tmp_path)[0] == 0
    assert here(tmp_path) == FILES
    assert list((tmp_path / "model").rglob("*.incomplete")) == []


def test_a_download_that_lost_the_folder_writes_no_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on storage whose locks do nothing: another one took the folder in the meantime."""

    def another(folder: Path, *_: object) -> None:
        (folder / ".baton-download.lock").write_text("another")

    monkeypatch.setattr(download, "_files_of", lambda *_: [])
    monkeypatch.setattr(download, "_fetch_all", another)
    assert download.main([REPO, COMMIT, str(tmp_path / "model")]) == 1
    assert "another download has taken this folder over" in capsys.readouterr().out
    assert marker(tmp_path) is None


@pytest.mark.parametrize(("total", "code"), [(100_000_000, 1), (0, 0)])
def test_a_disk_without_room_is_refused_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], total: int, code: int
) -> None:
    file = download.File("a.safetensors", 70_000_000, "sha256", "0" * 64)
    fetched: list[object] = []
    monkeypatch.setattr(download, "_files_of", lambda *_: [file])
    monkeypatch.setattr(download, "_fetch_all", lambda *given: fetched.append(given))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(total, total, total and 20_000_000))
    assert download.main([REPO, COMMIT, str(tmp_path / "model")]) == code
    assert bool(fetched) is (code == 0)
    assert ("0.07 GB are missing and the volume has 0.02 GB left of 0.10 GB" in capsys.readouterr().out) is bool(code)


def test_it_stands_alone() -> None:
    """What the Job runs has no other file of ours beside it, and fits a ConfigMap and a literal block."""
    text = Path(download.__file__).read_text(encoding="ascii")
    assert not re.search(r"^\s*(from|import) baton", text, re.MULTILINE)
    assert len(text) < 100_000
    assert all(line == line.rstrip() and line.isprintable() for line in text.split("\n"))


def test_it_is_told_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert download.main([REPO]) == 2
    assert "usage: python3 download.py REPO COMMIT FOLDER" in capsys.readouterr().out


def _start(hub: Hub, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(folder), env=environment(hub, folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _until(true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(0.02)
