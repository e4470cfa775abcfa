"""Finds what is started: every engine and front door among the commands of containers, scripts and embedded scripts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from baton.check.commands import arguments, versions
from baton.check.commands.launch import Launch, Version
from baton.check.kubernetes.manifests import Container, Workload
from baton.check.shell.nested import PRINTERS, name_of, nested
from baton.check.shell.script import Command, Word
from baton.check.text import Span, Text
from baton.check.yaml import tree

_MODULES = {
    "vllm.entrypoints.openai.api_server": "vllm",
    "dynamo.vllm": "dynamo.vllm",
    "dynamo.vllm.main": "dynamo.vllm",
    "dynamo.frontend": "dynamo.frontend",
    "dynamo.frontend.main": "dynamo.frontend",
}
_ENGINE = re.compile(
    r"\bvllm\s+serve\b|vllm[./]entrypoints[./]openai[./]api_server|\bdynamo\.(?:vllm|frontend)\b|vllm/vllm-openai"
)
_RUNNERS = ("docker", "podman", "nerdctl")
_ROLES = ("prefill", "decode")
_ROLE_SWITCHES = {"--is-prefill-worker": "prefill", "--is-decode-worker": "decode"}
_ROLE_VARIABLES = {"DYN_VLLM_IS_PREFILL_WORKER": "prefill", "DYN_VLLM_IS_DECODE_WORKER": "decode"}
_GPUS = ("nvidia.com/gpu", "amd.com/gpu")
_PRODUCTS = (
    ("h100-80gb", r"(?<!g)h100(?!.*nvl)|^p5\.48xlarge|a3-(?:high|mega)gpu"),
    ("h200", r"h200|^p5en\.|a3-ultragpu"),
    ("gb200", r"gb200"),
    ("gb300", r"gb300"),
    ("b200", r"(?<!g)b200|^a4-highgpu"),
)
_NODES = re.compile(r"^#SBATCH\s+(?:--nodes[=\s]+|-N\s*)(\d{1,6})\b", re.MULTILINE)
_GPUS_PER_NODE = re.compile(r"^#SBATCH\s+--(?:gpus-per-node[=\s]+|gres=gpu:)(?:\w+:)?(\d{1,6})\b", re.MULTILINE)


@dataclass(frozen=True, slots=True, eq=False)
class Invocation:
    """One command that a file runs, and what runs it; neither workload nor container for a plain script.

    script: the whole text the command stands in, for what holds for all of it (#SBATCH, pip install).
    """

    command: Command
    workload: Workload | None = None
    container: Container | None = None
    script: str = ""


Release = tuple[str, str]
"""what the person said of the engine (`--engine`): package and release"""


def mentions_engine(text: str) -> bool:
    """Say whether a text may start an engine, so that it is worth reading as a script."""
    return _ENGINE.search(text) is not None


def launches(invocations: Iterable[Invocation], override: Release | None) -> tuple[Launch, ...]:
    """Return the launches among commands, in order; `override` is the release of every one of its package."""
    found = list(invocations)
    pins = _pins(found)
    return tuple(launch for i in found if (launch := _launch(i, override, pins.get(i.script))) is not None)


def front_door(workload: Workload, override: Release | None) -> Launch | None:
    """Return the front door of a Dynamo frontend that names no command: the operator's `python3 -m dynamo.frontend`."""
    main = workload.pod.main
    if not workload.is_dynamo or workload.component != "frontend" or (main is not None and (main.command or main.args)):
        return None
    env = {name: v.word for name, v in main.env.items()} if main is not None else {}
    command = Command((), env, workload.span)
    invocation = Invocation(command, workload, main)
    return _started(
        invocation, "dynamo.frontend", workload.span, (), _version("dynamo.frontend", invocation, override, None)
    )


def _launch(invocation: Invocation, override: Release | None, pin: tuple[str, str, Span] | None) -> Launch | None:
    found = _engine_at(invocation)
    if found is None:
        return None
    engine, program, rest = found
    pin = _pin(invocation.command.words) or pin
    return _started(invocation, engine, program.span, rest, _version(engine, invocation, override, pin))


def _engine_at(invocation: Invocation) -> tuple[str, Word, tuple[Word, ...]] | None:
    """The engine a command starts, the word that says so, and the words after it."""
    words = invocation.command.words
    values = [word.value for word in words]
    if not words or name_of(words[0]) in PRINTERS:
        return None
    inner = nested(words)
    own = len(words) if inner is None else inner.script.start  # a script among the words is read by itself
    for at, value in enumerate(values[:own]):
        following = values[at + 1] if at + 1 < len(values) else ""
        if value.rsplit("/", maxsplit=1)[-1] == "vllm" and following == "serve":
            return "vllm", words[at], words[at + 2 :]
        if value == "-m" and following in _MODULES:
            return _MODULES[following], words[at + 1], words[at + 2 :]
        if value.endswith("vllm/entrypoints/openai/api_server.py"):
            return "vllm", words[at], words[at + 1 :]
        is_run = _is_run(invocation.command, at) and "--entrypoint" not in " ".join(values[:at])
        if is_run and versions.serves_by_itself(value) and (not following or following.startswith("-")):
            return "vllm", words[at], words[at + 1 :]
    return _engine_of_image(invocation)


def _engine_of_image(invocation: Invocation) -> tuple[str, Word, tuple[Word, ...]] | None:
    """The engine that the image of a container starts by itself, where only arguments are given."""
    words, container = invocation.command.words, invocation.container
    image = container.image if container is not None and container.command is None else None
    if image is None or not words[0].value.startswith("-") or not versions.serves_by_itself(str(image.value)):
        return None
    return "vllm", words[0], words


def _version(
    engine: str, invocation: Invocation, override: Release | None, pin: tuple[str, str, Span] | None
) -> Version:
    if override is not None and (override[0] == engine.split(".", maxsplit=1)[0] or engine == "dynamo.vllm"):
        return versions.known(engine, *override, None, "--engine")
    image = invocation.container.image if invocation.container is not None else None
    if image is not None:
        stated = versions.of_image(image.text.value) if image.is_known else None
        if stated is not None:
            return versions.known(engine, *stated, image.span, "the image tag")
        why = f"no release known: the image {image.text.value!r} does not say which it holds"
        return versions.unknown(engine, f"{why}; give --engine", image.span)
    if pin is not None:
        return versions.known(engine, pin[0], pin[1], pin[2], "the script")
    return versions.unknown(engine, "no release known: nothing here says which; give --engine", None)


def _started(invocation: Invocation, engine: str, start: Span, words: tuple[Word, ...], version: Version) -> Launch:
    parsed = arguments.parse(words, version.catalogues)
    workload, container = invocation.workload, invocation.container
    env = _docker_env(invocation.command) if _is_container(invocation.command) else invocation.command.env
    role, role_span = _role(engine, parsed.options, env)
    nodes, gpus = _machine(invocation)
    is_read = not versions.is_too_old(version)
    may_have_more = container is not None and container.args is None and not container.node.is_complete
    return Launch(
        engine=engine,
        start=start,
        words=words if is_read else (),
        options=parsed.options if is_read else (),
        positionals=parsed.positionals if is_read else (),
        env=env if is_read else {},
        version=version,
        workload=workload,
        container=container,
        is_complete=is_read
        and parsed.is_complete
        and not may_have_more
        and not any(o.name == "--config" for o in parsed.options),
        is_env_complete=is_read and (container is None or container.is_env_complete),
        role=role,
        role_span=role_span,
        intended=_intended(workload) if workload is not None else None,
        nodes=nodes,
        gpus_per_node=gpus,
        accelerator=_accelerator(workload) if workload is not None else None,
    )


def _role(
    engine: str, options: tuple[arguments.Argument, ...], env: Mapping[str, Word]
) -> tuple[str | None, Span | None]:
    """What the command line makes of the engine: a dynamo worker is aggregated unless told; vLLM goes by kv_role."""
    if engine == "vllm":
        return _kv_role(options)
    if engine != "dynamo.vllm":
        return None, None
    found: tuple[str | None, Span] | None = None
    for option in options:
        name = option.name or option.written.value.replace("_", "-")
        if name in _ROLE_SWITCHES and not option.negated:
            found = _ROLE_SWITCHES[name], option.span
        elif name == "--disaggregation-mode":
            found = (_mode(option.words[0]) if option.words else "aggregated"), option.span
    return found or _role_by_env(env)


def _role_by_env(env: Mapping[str, Word]) -> tuple[str | None, Span | None]:
    """Which role the variables that stand for the flags of a dynamo worker say."""
    for name, role in _ROLE_VARIABLES.items():
        word = env.get(name)
        if word is not None and (not word.is_known or word.value.lower() in ("true", "1", "yes", "on")):
            return (role if word.is_known else None), word.span
    mode = env.get("DYN_VLLM_DISAGGREGATION_MODE")
    return (_mode(mode), mode.span) if mode is not None else ("aggregated", None)


def _mode(word: Word) -> str | None:
    if not word.is_known:
        return None
    return word.value if word.value in _ROLES else "aggregated"


def _kv_role(options: tuple[arguments.Argument, ...]) -> tuple[str | None, Span | None]:
    for option in options:
        if option.name == "--kv-transfer-config":
            text = "".join(word.value for word in option.words)
            for kv_role, role in (("kv_producer", "prefill"), ("kv_consumer", "decode")):
                if kv_role in text:
                    return role, option.span
    return None, None


def _intended(workload: Workload) -> str | None:
    """What names and labels say a workload is; None if they say nothing, or both."""
    if workload.component in _ROLES:
        return workload.component
    prefill = tree.mapping(workload.object.node, "spec.prefill")
    if workload.object.kind == "LLMInferenceService" and prefill is not None:
        return "prefill" if any(node is workload.node for node in tree.walk(prefill)) else "decode"
    labels = [tree.mapping(workload.node, path) for path in ("metadata.labels", "spec.template.metadata.labels")]
    values = [
        entry.value.text.value
        for m in labels
        if m
        for entry in m.entries.values()
        if isinstance(entry.value, tree.Scalar)
    ]
    container = workload.pod.main.name if workload.pod.main is not None else None
    for names in ([workload.name or ""], [container or ""], values):
        said = {role for role in _ROLES for name in names if role in re.split(r"[^a-z]+", name.lower())}
        if len(said) == 1:
            return said.pop()
    return None


def _machine(invocation: Invocation) -> tuple[int | None, int | None]:
    """Nodes of one replica and GPUs of each: of the workload, or of an sbatch script (all nodes only through srun)."""
    workload = invocation.workload
    if workload is not None:
        gpus = next((n for name in _GPUS if (n := workload.resource(name)) is not None), None)
        return workload.nodes, gpus
    if "#SBATCH" not in invocation.script:
        return None, None
    found = [pattern.search(invocation.script) for pattern in (_NODES, _GPUS_PER_NODE)]
    nodes, gpus = (int(m[1]) if m else None for m in found)
    text = " ".join(word.value for word in invocation.command.words)
    own = re.search(r"\bsrun\b.*?(?:--nodes[=\s]+|-N\s*)(\d{1,6})\b", text)
    if own is not None:
        return int(own[1]), gpus
    return ((nodes or 1) if "srun" in invocation.script else 1), gpus


def _accelerator(workload: Workload) -> str | None:
    """The GPU that a node selector or affinity asks for by product or machine type; None if none, or several."""
    spec = workload.pod.spec
    wanted = [tree.mapping(spec, "nodeSelector"), tree.mapping(spec, "affinity.nodeAffinity")] if spec else []
    texts = [n.text.value.lower() for m in wanted if m for n in tree.walk(m) if isinstance(n, tree.Scalar)]
    found = {name for text in texts for name, mark in _PRODUCTS if re.search(mark, text)}
    return found.pop() if len(found) == 1 else None


def _is_container(command: Command) -> bool:
    program = next((word for word in command.words if word.value not in ("sudo", "-E", "exec", "time")), None)
    return program is not None and name_of(program) in _RUNNERS


def _is_run(command: Command, at: int) -> bool:
    """Whether the word at `at` may be the image that a container is made of; `docker build` and `pull` make none."""
    return _is_container(command) and any(word.value in ("run", "create") for word in command.words[:at])


def _docker_env(command: Command) -> dict[str, Word]:
    """Variables that `docker run -e NAME=VALUE` sets; -e NAME passes the shell's own on, and nothing else does."""
    found = {}
    for flag, word in pairwise(command.words):
        if flag.value in ("-e", "--env"):
            name, equals, _ = word.value.partition("=")
            own = command.env.get(name)
            if equals:
                found[name] = Word(word.text[len(name) + 1 :], word.span, word.is_known)
            elif own is not None:
                found[name] = own
    return found


def _pins(invocations: Iterable[Invocation]) -> dict[str, tuple[str, str, Span]]:
    """What each script pins by an image or a `pip install`, where it pins one release only."""
    by_script: dict[str, list[Word]] = {}
    for invocation in invocations:
        by_script.setdefault(invocation.script, []).extend(invocation.command.words)
    found = {}
    for script, words in by_script.items():
        pin = _pin(words) if script else None
        if pin is not None:
            found[script] = pin
    return found


def _pin(words: Iterable[Word]) -> tuple[str, str, Span] | None:
    pin = versions.pinned(_images(words))
    return (pin[0], pin[1], pin[2].span()) if pin is not None else None


def _images(words: Iterable[Word]) -> Iterator[Text]:
    """The words that may name an image or a requirement; of --container-image=X the X."""
    for word in words:
        at = word.value.find("=") if word.value.startswith("--") else -1
        yield word.text[at + 1 :] if at > 0 and "image" in word.value[:at] else word.text
