"""One engine, or front door, that a file starts: its program, arguments, environment, and where it runs.

Everything a rule may ask of a command line is asked here, and answered from the catalogue of the release that runs: the
one of its image, or every release there is if that is not known. An answer is given only if it holds for all of them;
else it is None, and a rule that gets None stays silent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from baton.catalogue.engine import EngineCatalogue, Flag, version_key
from baton.check.commands import values
from baton.check.commands.arguments import Argument
from baton.check.kubernetes.manifests import Container, Workload
from baton.check.shell.script import Word
from baton.check.text import Span

_MODELS = {"deepseek-r1": "deepseek-r1", "deepseek-v3": "deepseek-r1", "deepseek-v2-lite": "deepseek-v2-lite"}
_SPARSE = ("v3.2", "v3_2", "speciale", "v4")
"""of DeepSeek's names: models whose attention is sparse, so that neither its kernels nor its cache are those we know"""


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """Which releases a launch may be.

    engine: "vllm", "dynamo.vllm" or "dynamo.frontend". stated: what the file says ("0.11.0"), None if nothing.
    catalogues: the candidates, oldest first: one if the release is known, else all the catalogue has. why: how it was
    found, or why not, in words that follow "vLLM: ". span: where that stands (an image, a recipe's engine.version).
    """

    engine: str
    stated: str | None
    catalogues: tuple[EngineCatalogue, ...]
    why: str
    span: Span | None

    @property
    def is_known(self) -> bool:
        """Whether one release is meant, so that its catalogue says what is true."""
        return len(self.catalogues) == 1

    @property
    def name(self) -> str:
        """The release as people say it: "vLLM 0.12.0", "dynamo 0.8.0"; all known ones: "vLLM 0.11.0 to 0.33.0"."""
        package = "vLLM" if self.engine == "vllm" else "dynamo"
        first, last = self.catalogues[0].version, self.catalogues[-1].version
        return f"{package} {first}" if first == last else f"{package} {first} to {last}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Launch:
    """One start of an engine or a front door.

    engine: "vllm", "dynamo.vllm", "dynamo.frontend". start: where the program stands. words: what follows it. options:
    those words as options; positionals: the rest. env: everything that reaches it. is_complete: False if part of its
    arguments cannot be known (an unset variable, a --config file): then nothing follows from the absence of a flag.
    is_env_complete: the same of env. role: "prefill", "decode" or "aggregated" as the command line says, None if it
    says nothing; role_span: what says so. intended: "prefill" or "decode" by the name or label of what runs it.
    nodes, gpus_per_node: what its workload or batch script gives it, None if not known. accelerator: the GPU's name in
    the catalogue, or "cpu", where a node selector or a recipe says it. weights, repo: the number format of the weights
    and the Hugging Face repository they come from, where a recipe says them.
    """

    engine: str
    start: Span
    words: tuple[Word, ...]
    options: tuple[Argument, ...]
    positionals: tuple[Word, ...]
    env: Mapping[str, Word]
    version: Version
    workload: Workload | None
    container: Container | None
    is_complete: bool
    is_env_complete: bool
    role: str | None
    role_span: Span | None
    intended: str | None
    nodes: int | None
    gpus_per_node: int | None
    accelerator: str | None = None
    weights: Word | None = None
    repo: Word | None = None

    @property
    def is_engine(self) -> bool:
        """Whether it computes tokens; a front door does not."""
        return self.engine != "dynamo.frontend"

    @property
    def side(self) -> str | None:
        """prefill or decode: what the command line says, else what it is meant to be."""
        return self.role if self.role in ("prefill", "decode") else self.intended

    @property
    def title(self) -> str:
        """What to call it: the workload's name, else the program."""
        return (self.workload.name if self.workload is not None else None) or self.engine

    def all_given(self, name: str) -> tuple[Argument, ...]:
        """Return every use of a flag, --name.key among them, in order."""
        return tuple(option for option in self.options if option.name == name)

    def given(self, name: str) -> Argument | None:
        """Return the use of a flag that counts: the last without keys; None if it is not given."""
        return next((o for o in reversed(self.options) if o.name == name and not o.path), None)

    def lacks(self, *names: str) -> bool:
        """Say for sure that none of these flags, nor the variables that stand for them, are given."""
        settings = [flag for name in names if (flag := self.flag(name)) is not None and flag.env]
        has_env = any(flag.env in self.env for flag in settings) or (settings and not self.is_env_complete)
        return self.is_complete and not has_env and not any(self.all_given(name) for name in names)

    def flag(self, name: str) -> Flag | None:
        """Return what the newest candidate says of a flag; None if none has it."""
        return next((c.flags[name] for c in reversed(self.version.catalogues) if name in c.flags), None)

    def has_flag(self, name: str) -> bool:
        """Say whether every candidate has a flag."""
        return all(name in c.flags for c in self.version.catalogues)

    def is_on(self, name: str) -> bool | None:
        """Return a switch's state: as given, else by default; None if not known."""
        value = self.value(name)
        return value if isinstance(value, bool) else None

    def value(self, name: str) -> Any:
        """Return a flag's value, typed: as given, else its default; None if unset, unknown, or not a legal value."""
        option = self.given(name)
        flag = self.flag(name)
        if flag is None:
            return None
        if option is not None:
            return _typed(option, flag)
        if flag.env and flag.env in self.env:
            word = self.env[flag.env]
            return _or_none(lambda: values.of_word(flag, word.value)) if word.is_known else None
        if not self.is_complete or (flag.env and not self.is_env_complete):
            return None
        return self._default(name)

    def config(self, name: str, *path: str) -> Any:
        """Return a key of a config flag: as --name.key or in its JSON, else its default; None if unset or not known."""
        given = self._given_key(name, path)
        if given is not _UNSET:
            return given
        flag = self.flag(name)
        if flag is None or not flag.config or not self.is_complete:
            return None
        found = [key for c in self.version.catalogues if (key := c.key(flag.config, path)) is not None]
        defaults = [key.default for key in found]
        return defaults[0] if defaults and defaults[0] is not msgspec.UNSET and _all_alike(defaults) else None

    def has_config(self, name: str, *path: str) -> bool:
        """Say whether a key of a config flag is written here."""
        return self._given_key(name, path) is not _UNSET

    def json(self, option: Argument) -> Any:
        """Return the JSON that an option carries; None if it carries none."""
        word = option.value
        return _or_none(lambda: json.loads(word.value)) if word is not None else None

    def variable(self, name: str) -> str | None:
        """Return the value of an environment variable; None if it is not set or not known."""
        word = self.env.get(name)
        return word.value if word is not None and word.is_known else None

    def reads(self, name: str) -> bool:
        """Say whether every candidate reads an environment variable."""
        return all(name in c.envs for c in self.version.catalogues)

    def is_between(self, first: str | None = None, before: str | None = None) -> bool:
        """Say whether every candidate is a vLLM from `first` on and older than `before` ("0.19.1")."""
        found = [_vllm_of(c) for c in self.version.catalogues]
        return all(
            v is not None
            and (first is None or version_key(v) >= version_key(first))
            and (before is None or version_key(v) < version_key(before))
            for v in found
        )

    @property
    def model(self) -> Word | None:
        """The model as written: --model, or the word after `serve`."""
        option = self.given("--model")
        if option is not None:
            return option.words[0] if option.words else None
        return self.positionals[0] if self.positionals and self.engine == "vllm" else None

    @property
    def is_sparse(self) -> bool:
        """Whether a name of the model is that of a DeepSeek with sparse attention."""
        return any(mark in name for name in self._model_names() for mark in _SPARSE)

    @property
    def known_model(self) -> str | None:
        """The catalogue's name of the model, by the names the command line gives it; None if it is no model of ours."""
        if self.is_sparse:
            return None
        return next((_MODELS[m] for m in _MODELS if any(m in name for name in self._model_names())), None)

    @property
    def weight_dtype(self) -> str | None:
        """ "nvfp4" where the recipe, model or --quantization say so, else None: the checkpoint itself decides."""
        if self.weights is not None:
            return "nvfp4" if self.weights.value == "nvfp4" else None
        names = [*self._model_names(), str(self.value("--quantization") or "")]
        return "nvfp4" if any("fp4" in name for name in names) else None

    @property
    def tp_size(self) -> int | None:
        """Tensor-parallel size; None if not known."""
        return _whole(self.value("--tensor-parallel-size"))

    @property
    def pp_size(self) -> int | None:
        """Pipeline-parallel size; None if not known."""
        return _whole(self.value("--pipeline-parallel-size"))

    @property
    def dp_size(self) -> int | None:
        """Data-parallel size over all nodes; None if not known."""
        return _whole(self.value("--data-parallel-size"))

    @property
    def ep_size(self) -> int | None:
        """Ranks the experts are split over: 1 without expert parallelism; None if not known."""
        is_on, dp, tp = self.is_on("--enable-expert-parallel"), self.dp_size, self.tp_size
        if is_on is False:
            return 1
        return dp * tp if is_on and dp and tp else None

    @property
    def all2all(self) -> str | None:
        """The all2all backend, by flag or by the variable of old releases; None if not known."""
        value = self.value("--all2all-backend")
        if self.given("--all2all-backend") is None and "VLLM_ALL2ALL_BACKEND" in self.env:
            return self.variable("VLLM_ALL2ALL_BACKEND")
        return value if isinstance(value, str) else None

    @property
    def kv_transfer(self) -> dict[str, Any] | None:
        """The JSON of --kv-transfer-config with its --kv-transfer-config.key words; None if absent or not known."""
        flag = "--kv-transfer-config"
        if not self.all_given(flag):
            return None
        option = self.given(flag)
        found = self.json(option) if option is not None else {}
        if not isinstance(found, dict):
            return None
        dotted = {o.path[0]: o.value.value for o in self.all_given(flag) if len(o.path) == 1 and o.value is not None}
        return {**found, **dotted}

    def _model_names(self) -> list[str]:
        served = self.given("--served-model-name")
        words = [*([self.model] if self.model is not None else []), *(served.words if served is not None else ())]
        return [w.value.lower() for w in words if "distill" not in w.value.lower()]

    def _default(self, name: str) -> Any:
        found = [c.flags[name].default for c in self.version.catalogues if name in c.flags]
        return None if not found or found[0] is msgspec.UNSET or not _all_alike(found) else found[0]

    def _given_key(self, name: str, path: tuple[str, ...]) -> Any:
        for option in reversed(self.all_given(name)):
            if tuple(p.removesuffix("+") for p in option.path) == path:
                word = option.value
                return _or_text(word.value) if word is not None else None
            found = self.json(option) if not option.path else None
            for part in path:
                found = found.get(part, _UNSET) if isinstance(found, dict) else _UNSET
            if found is not _UNSET:
                return found
        return _UNSET


_UNSET = object()


def _typed(option: Argument, flag: Flag) -> Any:
    if flag.bare or (flag.type == "bool" and flag.negation):
        return not option.negated
    if flag.nargs in ("+", "*"):
        if not all(word.is_known for word in option.words):
            return None
        return _or_none(lambda: [values.of_word(flag, word.value) for word in option.words])
    word = option.value
    return _or_none(lambda: values.of_word(flag, word.value)) if word is not None else None


def _or_none(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (ValueError, RecursionError):
        return None


def _or_text(text: str) -> Any:
    found = _or_none(lambda: json.loads(text))
    return text if found is None and text != "null" else found


def _all_alike(found: list[Any]) -> bool:
    return all(type(f) is type(found[0]) and f == found[0] for f in found)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _vllm_of(catalogue: EngineCatalogue) -> str | None:
    if catalogue.engine == "vllm":
        return catalogue.version
    return catalogue.takes_engine_flags_of.version if catalogue.takes_engine_flags_of is not None else None
