"""The README's own commands, run as they stand there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.running import ROOT, Deployment

from baton.recipe.document import parse
from baton.recipe.workers import WorkersFile

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [match.group(1) for match in re.finditer(r"(?m)^    ((?:make|curl|\.venv)(?:.*\\\n)*.*)$", README)]
RUN_ELSEWHERE = {
    "make up": "the deployment these commands talk to (tests/e2e/conftest.py)",
    "make test": "what runs this test",
    ".venv/bin/baton down": "would end it; tests/e2e/test_expert_parallel.py",
    ".venv/bin/baton gateway": "runs until it is ended; test_attaching_a_gateway_by_hand",
    ".venv/bin/baton secret": "needs a cluster; tests/unit/cli/test_secret.py",
    ".venv/bin/baton prove --model": "needs the ports of this run; tests/e2e/test_proof.py",
}
EXIT_CODES = {".venv/bin/baton check docs/broken.yaml": 1}
"""of the commands that do not end with 0, as the README says beside them"""


def command(line: str) -> str:
    """A line of the README without its comment."""
    return re.split(r"\s{2,}#", line)[0]


def test_every_command_is_run_here_or_named_as_run_elsewhere() -> None:
    assert len(SHELL) >= 9
    for start in RUN_ELSEWHERE:
        assert any(line.startswith(start) for line in SHELL), f"{start} is not in the README any more"


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.vllm
@pytest.mark.parametrize("line", [line for line in SHELL if not line.startswith(tuple(RUN_ELSEWHERE))])
def test_a_command_of_the_readme_works(deployment: Deployment, line: str) -> None:
    programs = Path(sys.executable).parent
    result = subprocess.run(
        command(line).replace(".venv/bin/", f"{programs}/"),
        shell=True,
        cwd=ROOT,
        env=deployment.env,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert result.returncode == EXIT_CODES.get(command(line), 0), result.stdout + result.stderr
    if "x-baton-route" in line:
        assert "prefill-0/0->decode-0/0" in result.stdout
        assert "total;dur=" in result.stdout
    elif line.startswith("curl"):
        message = json.loads(result.stdout)["choices"][0]["message"]
        assert "hello" in message["content"].lower()


@pytest.mark.vllm
def test_the_python_of_the_readme_works(deployment: Deployment) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False, env=deployment.env
    )
    assert "933" in result.stdout, result.stdout + result.stderr


def test_the_workers_file_of_the_readme_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert len(parse(text, WorkersFile, source="README.md").workers) == 2
