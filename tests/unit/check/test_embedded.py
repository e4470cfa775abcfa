"""Commands inside Markdown, strings of YAML and Compose files; what looks like one and is none."""

import pytest

from baton.check.bundle import of_sources
from baton.check.run import check
from baton.check.text import Source

FENCE = "```"


def lines(text: str, name: str) -> list[int]:
    """Where engines start."""
    return [launch.start.line for launch in of_sources([Source(name, text)]).launches]


def errors(text: str, name: str) -> list[str]:
    report = check(of_sources([Source(name, text)]))
    return [f.message for f in report.findings if f.harm is not None and f.harm.severity == "error"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{FENCE}bash\nvllm serve m\n{FENCE}\n", [2]),
        (f"1. Start it:\n\n   {FENCE}shell title=x\n   vllm serve m \\\n     --port 1\n   {FENCE}\n", [4]),
        (f"- {FENCE}bash\n  vllm serve m\n  {FENCE}\n", [2]),
        (f"{FENCE}{{code-block}} bash\n:tab: 1\nvllm serve m\n{FENCE}\n", [3]),
        (f"{FENCE}\nA=1 vllm serve m\n{FENCE}\n", [2]),
        (f"{FENCE}\nsee vllm serve for more\n{FENCE}\n", []),
        (f"{FENCE}text\nvllm serve m\n{FENCE}\n", []),
        (f"{FENCE}bash\ndocker build --tag vllm/vllm-openai --build-arg A=1 .\n{FENCE}\n", []),
        (f"{FENCE}bash\nsudo docker run --gpus all vllm/vllm-openai:v0.32.0 --model m\n{FENCE}\n", [2]),
        (f'{FENCE}bash\nC="vllm serve m"\necho $C\neval $C\n{FENCE}\n', [2]),
    ],
)
def test_engines_in_markdown(text: str, found: list[int]) -> None:
    assert lines(text, "a.md") == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("run: vllm serve m --port 1", [1]),
        ("run: env A=1 nohup vllm serve m --port 1", [1]),
        ("note: start it on the same node, before vllm serve -- it owns --all of the memory", []),
        ("claim: ours beats vanilla vllm serve by +29 % / --more", []),
        (f"guide: |\n  Text --port.\n\n  {FENCE}bash\n  vllm serve m\n  {FENCE}\n  It does not --help.", [5]),
        (f"guide: |\n  Text with vllm serve --port.\n\n  {FENCE}\n  nothing\n  {FENCE}\n", []),
    ],
)
def test_engines_in_strings_of_yaml(value: str, found: list[int]) -> None:
    assert lines(f"{value}\n", "a.yaml") == found


def test_compose_takes_dollars_and_backslashes_out() -> None:
    text = """services:
  engine:
    image: vllm
    entrypoint: /bin/bash -c "cd /x &&
      A=1 \\
      vllm serve $${MODEL} \\
      --port $${PORT} \\
      --enforce-eager"
"""
    (launch,) = of_sources([Source("compose.yaml", text)]).launches
    assert [option.name for option in launch.options] == ["--port", "--enforce-eager"]
    assert errors(text, "compose.yaml") == []


@pytest.mark.parametrize(
    "arguments",
    [
        "--port <port> --served-model-name <a name> --max-model-len 8",
        "--data-parallel-address <node_ip> # up to",
        '--speculative-config \'{"model": <draft>, "method": "eagle3"}\'',
        "--download-dir {model directory} ...",
        "--omni --stage-configs-path x",
        '--additional-config \'{}\' --kv-transfer-config \'{"kv_connector":"MyNixlConnector","kv_role":"kv_both"}\'',
        '--kv-transfer-config \'{"kv_connector":"OtherConnector","kv_role":"kv_both"}\'',
    ],
)
def test_what_a_reader_or_a_plugin_fills_in_is_no_error(arguments: str) -> None:
    assert errors(f"#!/bin/bash\nvllm serve m {arguments}\n", "a.sh") == []


def test_a_slip_is_one_beside_a_plugin_too() -> None:
    script = "#!/bin/bash\nvllm serve m --omni --max-model-length 8\n"
    report = check(of_sources([Source("a.sh", script)]))
    assert [f.message for f in report.findings if f.code == "unknown-flag"] == ["vllm has no flag --max-model-length"]


@pytest.mark.parametrize(("value", "count"), [("1", 0), ("0", 1)])
def test_a_variable_that_says_the_default_is_left_alone_where_no_release_is_known(value: str, count: int) -> None:
    report = check(of_sources([Source("a.sh", f"#!/bin/bash\nVLLM_USE_V1={value} vllm serve m\n")]))
    assert len([f for f in report.findings if f.code == "removed-env"]) == count


@pytest.mark.parametrize(("shown", "count"), [(1, 1), (2, 0)])
def test_a_page_of_several_commands_contradicts_none_of_them(shown: int, count: int) -> None:
    block = f"{FENCE}bash\nvllm serve m --max-num-seqs 64\n{FENCE}\n"
    report = check(of_sources([Source("a.md", "It takes `--max-num-seqs 512`.\n\n" + block * shown)]))
    assert len([f for f in report.findings if f.code == "readme-disagrees"]) == count
