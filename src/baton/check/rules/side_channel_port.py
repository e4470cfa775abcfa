"""Two engines of one host whose NIXL side channels want the same port.

Each data-parallel rank listens on VLLM_NIXL_SIDE_CHANNEL_PORT (5600 unless set, 5557 in vLLM 0.11) plus its number. Two
engines of one pod, or of one script, share the host: the second gets "Address already in use" and exits, or decode asks
the wrong engine.

Give each engine a base port of its own, at least as far apart as the first has ranks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts import disaggregation as disagg
from baton.check.finding import Finding, Fix, Harm
from baton.check.text import Span

HARM = Harm.NOT_STARTING
SEE = ("https://docs.vllm.ai/en/latest/features/nixl_connector_usage.html",)
_SCRIPT = """\
#!/bin/bash
export VLLM_NIXL_SIDE_CHANNEL_HOST=127.0.0.1
VLLM_NIXL_SIDE_CHANNEL_PORT=5600 vllm serve /models/qwen --port 8100 --data-parallel-size 2 \\
  --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_producer"}' &
VLLM_NIXL_SIDE_CHANNEL_PORT=%s vllm serve /models/qwen --port 8200 \\
  --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_consumer"}' &
"""
FIRES = _SCRIPT % "5601"
SILENT = _SCRIPT % "5602"
_NAME = "VLLM_NIXL_SIDE_CHANNEL_PORT"
_ELSEWHERE = ("srun", "ssh", "docker", "podman", "nerdctl", "kubectl", "mpirun", "pdsh")
_EITHER_OR = re.compile(r"\b(?:else|elif|esac|exit|function)\b|;;|\(\)|^\s*(?:wait|kill|pkill)\b", re.MULTILINE)
_BACKGROUND = re.compile(r"(?<!&)&(?!&|>|\d)")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every two engines that surely run side by side and share a port."""
    for group in bundle.deployments:
        found = [e for e in group if e.is_engine and e.engine == "vllm" and disagg.uses_nixl(e)]
        local = {id(e): _is_here(bundle, e) for e in found}
        for first, second in combinations(found, 2):
            if local[id(first)] and local[id(second)] and _is_one_host(first, second):
                yield from _collision(first, second)


def _collision(first: Launch, second: Launch) -> Iterator[Finding]:
    one, two = _ports(first), _ports(second)
    if one is None or two is None or not (one.start < two.stop and two.start < one.stop):
        return
    word, other = second.env.get(_NAME), first.env.get(_NAME)
    yield Finding(
        span=word.span if word is not None else second.start,
        message=f"{_NAME}: port {max(one.start, two.start)} is taken by the engine above: "
        "this one fails to bind it, and exits",
        evidence=(f"above {_range(one)}, here {_range(two)}: one port for each data-parallel rank",),
        fix=Fix(f"set {_NAME} to {one.stop} or more here"),
        also=((other.span if other is not None else first.start, f"takes {_range(one)}"),),
    )


def _ports(launch: Launch) -> range | None:
    """The ports an engine listens on; None if not known."""
    word = launch.env.get(_NAME)
    is_old = launch.is_between(before="0.12")
    if word is None and not launch.is_env_complete:
        return None
    text = word.value if word is not None else "5557" if is_old else "5600"
    if (word is not None and not word.is_known) or not re.fullmatch(r"\d{1,5}", text):
        return None
    given = launch.value("--data-parallel-size-local") if launch.given("--data-parallel-size-local") else launch.dp_size
    count = given if isinstance(given, int) and given > 0 else 1
    return range(int(text), int(text) + count * (launch.tp_size or 1 if is_old else 1))


def _is_one_host(first: Launch, second: Launch) -> bool:
    if first.workload is not second.workload or first.start.source is not second.start.source:
        return False
    if first.container is not second.container:
        return first.workload is not None
    between: Span = Span(first.start.source, first.start.start, second.start.start)
    text = re.sub(r"(?m)#.*$", "", between.written)
    return bool(_BACKGROUND.search(text)) and not _EITHER_OR.search(text)


def _is_here(bundle: Bundle, launch: Launch) -> bool:
    """Whether an engine is started on the host that its script runs on."""
    for invocation in bundle.invocations:
        words = invocation.command.words
        if any(word.span == launch.start for word in words):
            return not any(word.value.rsplit("/", maxsplit=1)[-1] in _ELSEWHERE for word in words[:4])
    return False


def _range(ports: range) -> str:
    return str(ports.start) if len(ports) == 1 else f"{ports.start} to {ports.stop - 1}"
