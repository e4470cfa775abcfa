"""What was once said wrongly of manifests that run: parts of objects, builds of one's own, releases long gone."""

from __future__ import annotations

import pytest

from baton.check import run
from baton.check.bundle import of_sources
from baton.check.text import Source


def told(text: str, name: str = "a.yaml") -> dict[str, str]:
    """Return the severity of every code that is found."""
    report = run.check(of_sources([Source(name, text)]))
    return {finding.code: run.harm_of(finding).severity for finding in report.findings}


def deployment(container: str, selector: str = "selector: {matchLabels: {a: b}}", kind: str = "Deployment") -> str:
    return f"""\
apiVersion: apps/v1
kind: {kind}
metadata: {{name: prefill}}
spec:
  {selector}
  template:
    spec:
      containers:
        - name: engine
          {container}
          command: [vllm, serve, m, --tensor-parallel-size=8]
          args: ['--kv-transfer-config={{"kv_connector":"NixlConnector","kv_role":"kv_producer"}}']
"""


IMAGE = "image: vllm/vllm-openai:v0.32.0"


@pytest.mark.parametrize(
    ("text", "is_whole"),
    [
        (deployment(IMAGE), True),
        (deployment("imagePullPolicy: Always"), False),
        (deployment(IMAGE, "replicas: 2"), False),
        (
            deployment(IMAGE).replace("apps/v1", "serving.kserve.io/v1alpha1").replace("Deployment", "ServingRuntime"),
            False,
        ),
    ],
)
def test_nothing_follows_from_what_a_part_of_an_object_leaves_out(text: str, is_whole: bool) -> None:
    assert ("side-channel-host" in told(text)) is is_whole
    assert ("shared-memory" in told(text)) is is_whole


def script(image: str, words: str) -> str:
    return f"#!/bin/sh\ndocker run {image} --model m {words}\n"


@pytest.mark.parametrize(
    ("image", "words", "said"),
    [
        ("vllm/vllm-openai:v0.11.0", "--no-such-flag", {"unknown-flag": "error"}),
        ("vllm/vllm-openai:v0.6.1", "--no-such-flag --enable-chunked-prefill false", {}),
        ("vllm/vllm-openai:v0.6.1-own", "--no-such-flag --enable-chunked-prefill false", {}),
        ("vllm/vllm-openai:v0.32.0-cu130-ubuntu2404", "--no-such-flag", {"unknown-flag": "error"}),
    ],
)
def test_only_releases_of_the_catalogue_are_judged(image: str, words: str, said: dict[str, str]) -> None:
    found = told(script(image, words), "run.sh")
    assert {code: found[code] for code in found if code in ("unknown-flag", "stray-argument")} == said


@pytest.mark.parametrize(
    ("tag", "severity"), [("v0.32.0", "error"), ("v0.32.0-own.1", None), ("v0.32.0-x86_64", "error")]
)
def test_an_image_of_ones_own_may_bring_its_connector(tag: str, severity: str | None) -> None:
    text = deployment(f"image: vllm/vllm-openai:{tag}").replace("NixlConnector", "OwnConnector")
    assert told(text).get("kv-connector") == severity


def test_a_backslash_in_a_folded_block_is_one_fault() -> None:
    pod = """\
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  containers:
    - name: a
      image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1
      command: [sh, -c]
      args:
        - >-
          python3 -m dynamo.vllm \\
          --model m \\
          --block-size 64
"""
    of_block = [
        f.message for f in run.check(of_sources([Source("a.yaml", pod)])).findings if f.code == "stray-argument"
    ]
    assert of_block == ["the backslash before --model makes a blank part of it: dynamo.vllm exits"]
    assert "stray-argument" not in told(pod.replace(">-", "|-"))


def test_arithmetic_over_a_template_is_a_value() -> None:
    text = "#!/bin/sh\nR=$(( ${I:-0} * {{ .Values.ranks }} ))\nvllm serve m --data-parallel-start-rank $R --headless\n"
    assert "missing-value" not in told(text, "run.sh")


def test_prose_that_names_a_command_starts_nothing() -> None:
    assert not told("claim: ours beats plain vllm serve by +20% / -66% on one GPU\n")
    assert "unknown-flag" in told("custom: |\n  vllm serve m \\\n  --no-such-flag\n")


def test_actions_that_no_reader_of_yaml_understands_are_no_fault() -> None:
    assert "syntax" not in told("a:\n{{ if .x }}\n  b: c: {{ .y }}\n{{ end }}\n")
    assert "syntax" not in told("a:\n${BLOCK}\n  b: c\n")
    assert told("a:\n  b: c: d\n")["syntax"] == "error"
