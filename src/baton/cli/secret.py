"""`baton secret`: the Hugging Face token, from an environment variable or standard input straight into the cluster.

The token is never an option, an argument of a process, a file or a line of output. It goes to `kubectl apply` on
standard input, server-side: no annotation keeps a copy, and one that an earlier `kubectl apply` left goes with it.
"""

from __future__ import annotations

import base64
import getpass
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from baton.base.errors import ConfigError, WorkerError
from baton.cli.options import RecipePath, Settings

if TYPE_CHECKING:
    from baton.recipe.deployment import Deployment

_LONGEST = 4096


def secret(
    recipe: RecipePath,
    from_env: Annotated[str, typer.Option(metavar="NAME", help="Environment variable with the token.")] = "HF_TOKEN",
    stdin: Annotated[bool, typer.Option("--stdin", help="Read the token from standard input instead.")] = False,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Short for --set cluster.namespace=...")
    ] = None,
    context: Annotated[str | None, typer.Option(help="kubectl's: which cluster.")] = None,
    kubeconfig: Annotated[str | None, typer.Option(help="kubectl's: which configuration.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the Secret without the token; change nothing.")
    ] = False,
    settings: Settings = None,
) -> None:
    """Make or replace the Secret with the Hugging Face token that a recipe's model download needs.

    Before or after `kubectl apply -k`, as you like: a missing namespace is made, and a download that has started
    waits for the Secret. Exits 1 with kubectl's own words if the cluster refuses, 2 if the token won't do.
    """
    from baton.recipe.deployment import load_deployment  # noqa: PLC0415 - not for --help
    from baton.render.documents import document  # noqa: PLC0415 - as above
    from baton.render.secret import hidden, holding  # noqa: PLC0415 - as above

    chosen = [*(settings or []), *([f"cluster.namespace={namespace}"] if namespace is not None else [])]
    deployment = load_deployment(recipe, chosen)
    token = _checked(_from_stdin() if stdin else _from_env(from_env), "standard input" if stdin else from_env)
    if dry_run:
        print(document(deployment, [hidden(deployment)]), end="")
        return
    cluster = [*(["--context", context] if context else []), *(["--kubeconfig", kubeconfig] if kubeconfig else [])]
    environment = {name: value for name, value in os.environ.items() if name != from_env}
    _apply([_kubectl(), *cluster], environment, deployment, json.dumps(holding(deployment, token)), token)


def _from_env(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise ConfigError(
            f"--from-env {name}: this environment variable is not set; set it to the token (huggingface.co, Settings, "
            "Access Tokens), name another one, or give the token on standard input with --stdin"
        )
    return value


def _from_stdin() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Hugging Face token (not shown): ")
    return sys.stdin.buffer.read(_LONGEST + 1).decode("utf-8", errors="replace")


def _checked(given: str, source: str) -> str:
    """Return the token; raises ConfigError, which never shows it, for what can't be one."""
    token = given.strip()
    if not token:
        raise ConfigError(
            f"{source}: the token is empty; tokens start with hf_ (huggingface.co, Settings, Access Tokens)"
        )
    if len(token) > _LONGEST or not all("!" <= character <= "~" for character in token):
        raise ConfigError(
            f"{source}: {len(token)} characters that can't be a token (not shown): expected one word of ASCII letters, "
            "digits and signs, without blanks or line breaks inside"
        )
    if not token.startswith("hf_"):
        print(
            f"baton: {source}: tokens of Hugging Face start with hf_, this one doesn't; used all the same",
            file=sys.stderr,
        )
    return token


def _kubectl() -> str:
    found = shutil.which("kubectl")
    if found is None:
        raise ConfigError("kubectl is not on PATH; install it (kubernetes.io, Install Tools), or see --dry-run")
    return found


def _apply(kubectl: list[str], environment: dict[str, str], deployment: Deployment, manifest: str, token: str) -> None:
    """Apply the Secret; if its namespace is missing, make that first. Where it is there, no right on it is needed."""
    apply = [*kubectl, "apply", "--server-side", "--force-conflicts", "--field-manager=baton", "-f", "-"]
    namespace = deployment.cluster.namespace
    done = _run(apply, environment, manifest)
    if done.returncode and f'namespaces "{namespace}" not found' in done.stderr:
        made = _run([*kubectl, "create", "namespace", namespace, "--save-config"], environment, "")
        print(made.stdout, end="")
        done = _run(apply, environment, manifest) if made.returncode == 0 else made
    if done.returncode:
        raise WorkerError(f"kubectl: {_without(token, done.stderr).strip() or f'exit code {done.returncode}'}")
    print(_without(token, done.stdout), end="")
    print(_without(token, done.stderr), end="", file=sys.stderr)


def _run(command: list[str], environment: dict[str, str], given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)


def _without(token: str, text: str) -> str:
    """Somebody else's text without the token, as it is and as a Secret holds it."""
    return text.replace(base64.b64encode(token.encode()).decode(), "<hidden>").replace(token, "<hidden>")
