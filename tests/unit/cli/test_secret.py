"""`baton secret`: the token reaches kubectl's standard input and nothing else."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.apiserver import ApiServer

RECIPES = Path(__file__).parents[3] / "recipes"
HOPPER = RECIPES / "deepseek-r1-hopper-32gpu.yaml"
TOKEN = "hf_AbCdEfGhIjKlMnOpQrSt"
KUBECTL = f"""\
#!{sys.executable}
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    json.dump({{"argv": sys.argv[1:], "stdin": sys.stdin.read(), "env": dict(os.environ)}}, calls)
    calls.write("\\n")
answers = json.load(open(os.environ["ANSWERS"]))
answer = answers.pop(0) if answers else {{"out": "secret/hf-token-secret serverside-applied\\n"}}
json.dump(answers, open(os.environ["ANSWERS"], "w"))
sys.stdout.write(answer.get("out", ""))
sys.stderr.write(answer.get("err", ""))
sys.exit(answer.get("code", 0))
"""
NO_NAMESPACE = {"code": 1, "err": 'Error from server (NotFound): namespaces "dynamo-system" not found\n'}


class Cluster:
    """A folder with a kubectl that writes down what it is called with, and answers as told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        (folder / "bin" / "kubectl").write_text(KUBECTL)
        (folder / "bin" / "kubectl").chmod(0o755)
        self.answers()

    def answers(self, *answers: dict[str, Any]) -> None:
        (self.folder / "answers").write_text(json.dumps(answers))

    @property
    def calls(self) -> list[dict[str, Any]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def baton(
        self, *words: str, given: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
        ours = {
            "PATH": str(self.folder / "bin"),
            "CALLS": str(self.folder / "calls"),
            "ANSWERS": str(self.folder / "answers"),
        }
        return subprocess.run(
            [sys.executable, "-m", "baton", "secret", str(HOPPER), *words],
            input=given, env=kept | ours | (env or {}), capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def shown(done: subprocess.CompletedProcess[str]) -> str:
    """What a person sees; never the token, as it is or as a Secret holds it."""
    seen = done.stdout + done.stderr
    assert TOKEN not in seen
    assert base64.b64encode(TOKEN.encode()).decode() not in seen
    return seen


def test_the_token_is_on_standard_input_alone(cluster: Cluster) -> None:
    done = cluster.baton(env={"HF_TOKEN": f" {TOKEN}\n"})
    assert done.returncode == 0, done.stderr
    assert shown(done) == "secret/hf-token-secret serverside-applied\n"
    (call,) = cluster.calls
    assert call["argv"] == ["apply", "--server-side", "--force-conflicts", "--field-manager=baton", "-f", "-"]
    assert "HF_TOKEN" not in call["env"]
    assert TOKEN not in json.dumps([call["argv"], call["env"]])
    secret = json.loads(call["stdin"])
    assert (secret["kind"], secret["type"]) == ("Secret", "Opaque")
    assert secret["metadata"] == {
        "name": "hf-token-secret",
        "namespace": "dynamo-system",
        "labels": {"app.kubernetes.io/name": "baton", "app.kubernetes.io/component": "model-download"},
    }
    assert {name: base64.b64decode(value) for name, value in secret["data"].items()} == {"HF_TOKEN": TOKEN.encode()}
    files = [path for path in cluster.folder.rglob("*") if path.is_file() and path.name != "calls"]
    assert all(TOKEN not in path.read_text() for path in files)


def test_it_may_come_from_another_variable_or_standard_input(cluster: Cluster) -> None:
    assert cluster.baton("--from-env", "MINE", env={"MINE": TOKEN, "HF_TOKEN": "hf_other"}).returncode == 0
    assert cluster.baton("--stdin", given=f"{TOKEN}\n", env={"HF_TOKEN": "hf_other"}).returncode == 0
    first, second = cluster.calls
    assert first["stdin"] == second["stdin"]
    assert base64.b64encode(TOKEN.encode()).decode() in first["stdin"]
    assert "MINE" not in first["env"]


def test_names_are_the_recipes_and_the_command_lines(cluster: Cluster) -> None:
    settings = ("--set", "cluster.hf_secret={name: mine, key: KEY}", "--namespace", "serving")
    words = (*settings, "--context", "big", "--kubeconfig", "/k/config")
    assert cluster.baton(*words, env={"HF_TOKEN": TOKEN}).returncode == 0
    (call,) = cluster.calls
    assert call["argv"][:5] == ["--context", "big", "--kubeconfig", "/k/config", "apply"]
    secret = json.loads(call["stdin"])
    assert (secret["metadata"]["name"], secret["metadata"]["namespace"]) == ("mine", "serving")
    assert list(secret["data"]) == ["KEY"]


def test_a_dry_run_shows_everything_but_the_token_and_calls_nobody(cluster: Cluster) -> None:
    done = cluster.baton("--dry-run", env={"HF_TOKEN": TOKEN})
    assert done.returncode == 0
    assert cluster.calls == []
    assert yaml.safe_load(shown(done))["data"] == {"HF_TOKEN": "<hidden>"}


def test_a_missing_namespace_is_made(cluster: Cluster) -> None:
    cluster.answers(NO_NAMESPACE, {"out": "namespace/dynamo-system created\n"})
    done = cluster.baton(env={"HF_TOKEN": TOKEN})
    assert done.returncode == 0
    assert shown(done) == "namespace/dynamo-system created\nsecret/hf-token-secret serverside-applied\n"
    first, made, second = cluster.calls
    assert made["argv"] == ["create", "namespace", "dynamo-system", "--save-config"]
    assert first["stdin"] == second["stdin"]
    assert made["stdin"] == ""


def test_a_namespace_that_may_not_be_made_is_kubectls_to_say(cluster: Cluster) -> None:
    cluster.answers(NO_NAMESPACE, {"code": 1, "err": "namespaces is forbidden: User x cannot create\n"})
    done = cluster.baton(env={"HF_TOKEN": TOKEN})
    assert done.returncode == 1
    assert shown(done) == "baton: kubectl: namespaces is forbidden: User x cannot create\n"
    assert len(cluster.calls) == 2


def test_kubectls_error_is_passed_on_without_the_token(cluster: Cluster) -> None:
    encoded = base64.b64encode(TOKEN.encode()).decode()
    cluster.answers({"code": 1, "err": f"refused: {TOKEN} and {encoded}\n"})
    done = cluster.baton(env={"HF_TOKEN": TOKEN})
    assert done.returncode == 1
    assert shown(done) == "baton: kubectl: refused: <hidden> and <hidden>\n"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "HF_TOKEN: the token is empty"),
        (" \n", "HF_TOKEN: the token is empty"),
        ("hf_a b", "without blanks or line breaks inside"),
        ("hf_a\nhf_b", "without blanks or line breaks inside"),
        ("hf_ä", "expected one word of ASCII"),
        ("hf_" + "a" * 5000, "can't be a token (not shown)"),
    ],
)
def test_what_is_no_token_is_refused_unseen(cluster: Cluster, token: str, said: str) -> None:
    done = cluster.baton(env={"HF_TOKEN": token})
    assert done.returncode == 2
    assert said in done.stderr
    assert not token.strip() or token.strip() not in done.stderr
    assert cluster.calls == []


def test_a_variable_that_is_not_set_is_named(cluster: Cluster) -> None:
    done = cluster.baton("--from-env", "NOT_SET")
    assert done.returncode == 2
    assert "--from-env NOT_SET: this environment variable is not set" in done.stderr


def test_a_token_that_looks_odd_is_used_with_a_hint(cluster: Cluster) -> None:
    done = cluster.baton(env={"HF_TOKEN": "your_hf_token"})
    assert done.returncode == 0
    assert "start with hf_, this one doesn't" in done.stderr
    assert "your_hf_token" not in done.stdout + done.stderr
    assert len(cluster.calls) == 1


def test_without_kubectl_nothing_is_tried(cluster: Cluster) -> None:
    (cluster.folder / "bin" / "kubectl").unlink()
    done = cluster.baton(env={"HF_TOKEN": TOKEN})
    assert done.returncode == 2
    assert "kubectl is not on PATH; install it" in shown(done)


def test_no_option_takes_a_token(cluster: Cluster) -> None:
    assert cluster.baton("--token", "x").returncode == 2
    assert cluster.baton("--set", "cluster.hf_secret.token=x", env={"HF_TOKEN": TOKEN}).returncode == 2
    assert cluster.calls == []


def test_a_real_cluster_keeps_the_secret_and_no_copy(api_server: ApiServer) -> None:
    """First into a namespace that is not there, then over a Secret that `kubectl apply` made and keeps a copy of."""
    command = [sys.executable, "-m", "baton", "secret", str(HOPPER), "--namespace", "secret-test"]
    env = {**api_server.env, "HF_TOKEN": TOKEN}

    def baton() -> str:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return shown(done)

    def kept() -> dict[str, Any]:
        found = api_server.kubectl("get", "secret", "hf-token-secret", "-n", "secret-test", "-o", "json")
        return json.loads(found.stdout)  # type: ignore[no-any-return]

    assert "namespace/secret-test created\nsecret/hf-token-secret serverside-applied\n" in baton()
    assert base64.b64decode(kept()["data"]["HF_TOKEN"]) == TOKEN.encode()
    assert "annotations" not in kept()["metadata"]

    api_server.kubectl("delete", "secret", "hf-token-secret", "-n", "secret-test")
    by_hand = {"apiVersion": "v1", "kind": "Secret", "stringData": {"HF_TOKEN": "old"}}
    by_hand["metadata"] = {"name": "hf-token-secret", "namespace": "secret-test"}
    assert api_server.kubectl("apply", "-f", "-", given=json.dumps(by_hand)).returncode == 0
    assert "annotations" in kept()["metadata"]
    baton()
    assert base64.b64decode(kept()["data"]["HF_TOKEN"]) == TOKEN.encode()
    assert TOKEN not in json.dumps(kept())
    assert "old" not in json.dumps(kept()["metadata"].get("annotations", {}))
