"""What one released ai-dynamo accepts: the flags of `python -m dynamo.vllm` and of `python -m dynamo.frontend`.

Only Dynamo's own: `dynamo.vllm` also takes the engine flags of the vLLM that the wheel asks for, named by `vllm_of`. Of
its variables only those behind a flag or in its own table: its Rust half reads more, which no Python source tells.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from baton.catalogue.extract import describe
from baton.catalogue.extract.config_classes import ConfigClasses
from baton.catalogue.extract.describe import Data
from baton.catalogue.extract.environment import environment
from baton.catalogue.extract.hints import HintReader
from baton.catalogue.extract.interpreter import Interpreter
from baton.catalogue.extract.sources import Sources
from baton.catalogue.extract.values import ClassRef, EnvDefault, FunctionRef
from baton.catalogue.extract.vllm import intrinsics

PACKAGE = "dynamo"
_PARSES = {
    "dynamo.vllm": (("dynamo.vllm.args", "_parse_cli_args"), ("dynamo.vllm.args", "parse_args")),
    "dynamo.frontend": (("dynamo.frontend.main", "parse_args"),),
}
_ENVS = {"dynamo.vllm": "dynamo.vllm.envs"}
_REQUIRES = re.compile(r"^Requires-Dist: vllm(?:\[[^]]*\])?\s*==\s*([0-9][^;\s]*)", re.MULTILINE)


def extract(sources: Sources, program: str) -> Data:
    """Return the catalogue of one program (`dynamo.vllm` or `dynamo.frontend`) as plain data.

    Raises ValueError if the wheel declares its flags in a place this program does not know.
    """
    interpreter = Interpreter(sources, {})
    reader = HintReader(interpreter)
    interpreter.intrinsics.update(intrinsics(ConfigClasses(interpreter, reader), reader))
    interpreter.intrinsics["env_or_default"] = _env_or_default
    parse = next((f for f in (interpreter.name(*p) for p in _PARSES[program]) if isinstance(f, FunctionRef)), None)
    if parse is None:
        raise ValueError(f"no parser of {program} in {_PARSES[program]}: say where this version has it")
    interpreter.interpret(parse, [], {})
    configs: dict[str, ClassRef] = {}
    flags: dict[str, object] = {}
    if not interpreter.parsers:
        raise ValueError(f"{program} made no parser: say where this version makes it")
    parser = interpreter.parsers[0]
    for argument in parser.arguments:
        described = describe.flag(argument, configs)
        if described is not None:
            flags[described[0]] = described[1]
    module = _ENVS.get(program, "")
    envs = environment(interpreter, reader, module) if sources.tree(module) is not None else {}
    declared = {str(d["env"]): _variable(d) for d in flags.values() if isinstance(d, dict) and "env" in d}
    takes = {"underscores": parser.takes_underscores, "abbreviations": parser.takes_abbreviations}
    return {"parser": takes, "flags": flags, "configs": {}, "envs": declared | envs, "enums": {}}


def vllm_of(metadata: str) -> str | None:
    """Return the vLLM version that the wheel's metadata asks for; None if it asks for none exactly."""
    found = _REQUIRES.search(metadata)
    return found.group(1) if found else None


def _variable(flag: Data) -> Data:
    """Return the environment variable that sets a flag's default, as data."""
    return {k: v for k, v in flag.items() if k in {"type", "choices", "default", "deprecated"}}


def _env_or_default(
    _interpreter: Interpreter, given: Sequence[object], keywords: Data, _node: ast.Call, _module: str
) -> object:
    name = given[0] if given else keywords.get("env_var")
    fallback = given[1] if len(given) > 1 else keywords.get("default")
    return EnvDefault(name, fallback) if isinstance(name, str) else fallback
