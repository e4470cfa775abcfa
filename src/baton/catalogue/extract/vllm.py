"""What one released vLLM accepts: flags of `vllm serve`, keys of its config flags, environment variables, names.

Knows where each vLLM from 0.11 to 0.33 declares them; a place that moved is one more entry in a list below.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from baton.catalogue.extract import describe
from baton.catalogue.extract.config_classes import ConfigClasses
from baton.catalogue.extract.describe import Data
from baton.catalogue.extract.environment import environment, read_directly
from baton.catalogue.extract.hints import HintReader
from baton.catalogue.extract.interpreter import Interpreter, Intrinsic
from baton.catalogue.extract.sources import Sources
from baton.catalogue.extract.values import Argument, ClassRef, FieldValue, FunctionRef, OptionalOf, Parser, Unknown

PACKAGE = "vllm"
_ATTENTION = (
    ("vllm.v1.attention.backends.registry", "AttentionBackendEnum"),
    ("vllm.attention.backends.registry", "AttentionBackendEnum"),
    ("vllm.attention.backends.registry", "_Backend"),
    ("vllm.platforms.interface", "_Backend"),
)
_LITERALS = {
    "moe_backend": (("vllm.config.kernel", "MoEBackend"),),
    "all2all_backend": (("vllm.config.parallel", "All2AllBackend"),),
    "quantization": (("vllm.model_executor.layers.quantization", "QuantizationMethods"),),
    "load_format": (("vllm.model_executor.model_loader", "LoadFormats"),),
}
_CONNECTORS = "vllm.distributed.kv_transfer.kv_connector.factory"
_MODELS = "vllm.model_executor.models.registry"
_PARSERS = (
    ("reasoning_parser", "vllm.reasoning", "_REASONING_PARSERS_TO_REGISTER"),
    ("tool_parser", "vllm.tool_parsers", "_TOOL_PARSERS_TO_REGISTER"),
    ("tool_parser", "vllm.entrypoints.openai.tool_parsers", "_TOOL_PARSERS_TO_REGISTER"),
)
_OLD_PARSERS = {"reasoning_parser": "vllm.reasoning", "tool_parser": "vllm.entrypoints.openai.tool_parsers"}


def extract(sources: Sources) -> Data:
    """Return the catalogue of one vLLM as plain data: flags, configs, envs, enums.

    Raises ValueError if the wheel declares its flags in a place this program does not know.
    """
    interpreter = Interpreter(sources, {})
    reader = HintReader(interpreter)
    classes = ConfigClasses(interpreter, reader)
    interpreter.intrinsics.update(intrinsics(classes, reader))
    configs: dict[str, ClassRef] = {}
    flags: dict[str, object] = {}
    engine_flags = {name for argument in engine_arguments(interpreter).arguments for name in argument.names}
    for argument in serve_arguments(interpreter).arguments:
        described = describe.flag(argument, configs)
        if described is not None:
            name, data = described
            flags[name] = data | _folding(interpreter, argument) | ({} if name in engine_flags else {"frontend": True})
    _name_configs(interpreter, flags, configs)
    envs = environment(interpreter, reader, "vllm.envs")
    return {
        "parser": {"underscores": True, "abbreviations": True},
        "flags": flags,
        "configs": _config_data(classes, configs),
        "envs": envs | read_directly(sources, "VLLM_", envs),
        "enums": _enums(interpreter, reader),
    }


def serve_arguments(interpreter: Interpreter) -> Parser:
    """Return the parser of `vllm serve`, filled by interpreting `make_arg_parser`."""
    places = [m for m in interpreter.sources.modules("vllm.entrypoints.") if m.endswith(".cli_args")]
    for module in places:
        make = interpreter.name(module, "make_arg_parser")
        if isinstance(make, FunctionRef):
            parser = Parser()
            interpreter.interpret(make, [parser], {})
            return parser
    raise ValueError(f"no make_arg_parser in {', '.join(places) or 'vllm.entrypoints'}: say where this version has it")


def _folding(interpreter: Interpreter, argument: Argument) -> Data:
    """Say that a flag's own converter takes Some-Name as some_name, found by giving it one."""
    convert = argument.keywords.get("type")
    is_folded = isinstance(convert, FunctionRef) and interpreter.interpret(convert, ["A-b_C"], {}) == "a_b_c"
    return {"type": "str", "folded": True} if is_folded else {}


def engine_arguments(interpreter: Interpreter) -> Parser:
    """Return the parser of the engine's own flags alone: those that other front ends take too."""
    parser = Parser()
    owner = interpreter.name("vllm.engine.arg_utils", "AsyncEngineArgs")
    add = interpreter.attribute(owner, "add_cli_args")
    if not isinstance(add, FunctionRef):
        raise ValueError("no AsyncEngineArgs.add_cli_args in vllm.engine.arg_utils: say where this version has it")
    interpreter.interpret(add, [parser], {})
    return parser


def intrinsics(classes: ConfigClasses, reader: HintReader) -> dict[str, Intrinsic]:
    """Return the functions of vLLM and of the standard library that are answered here instead of interpreted."""

    def get_kwargs(_i: Interpreter, given: Sequence[object], _k: Data, _n: ast.Call, _m: str) -> object:
        return classes.keywords(given[0]) if given and isinstance(given[0], ClassRef) else Unknown()

    def get_field(i: Interpreter, given: Sequence[object], _k: Data, _n: ast.Call, _m: str) -> object:
        return i.attribute(given[0], given[1]) if len(given) > 1 and isinstance(given[1], str) else Unknown()

    def field(_i: Interpreter, given: Sequence[object], keywords: Data, _n: ast.Call, _m: str) -> object:
        return FieldValue(keywords if not given else {"default": given[0], **keywords})

    def optional(_i: Interpreter, given: Sequence[object], _k: Data, _n: ast.Call, _m: str) -> object:
        return OptionalOf(given[0])

    def same(_i: Interpreter, given: Sequence[object], _k: Data, _n: ast.Call, _m: str) -> object:
        return given[0]

    def get_args(_i: Interpreter, _g: Sequence[object], _k: Data, node: ast.Call, module: str) -> object:
        return tuple(v for hint in reader.read(node.args[0], module) for v in hint.values)

    return {
        "get_kwargs": get_kwargs, "get_field": get_field, "dataclasses.field": field, "field": field,
        "pydantic.Field": field, "pydantic.fields.Field": field, "optional_type": optional, "parse_type": same,
        "get_args": get_args, "typing.get_args": get_args, "typing_extensions.get_args": get_args,
    }  # fmt: skip


def _name_configs(interpreter: Interpreter, flags: dict[str, object], configs: dict[str, ClassRef]) -> None:
    """Give flags such as --speculative-config, which argparse takes as any JSON, the class vLLM makes of that JSON."""
    known = {}
    for name in interpreter.sources.bindings("vllm.config"):
        found = interpreter.name("vllm.config", name)
        if isinstance(found, ClassRef) and found.is_dataclass():
            known[name.lower()] = found
    for name, data in flags.items():
        owner = known.get(name.strip("-").replace("-", ""))
        if owner is not None and isinstance(data, dict) and data["type"] in {"json", "json_or_str"}:
            data["config"] = owner.name
            configs[owner.name] = owner


def _config_data(classes: ConfigClasses, wanted: dict[str, ClassRef]) -> Data:
    """Return the keys of the wanted classes and of all classes their fields lead to."""
    out: Data = {}
    while names := sorted(set(wanted) - set(out)):
        for name in names:
            fields = (f for f in classes.fields(wanted[name]) if f.is_init and not f.name.startswith("_"))
            out[name] = {f.name: describe.field(classes, f, wanted) for f in fields}
    return out


def _enums(interpreter: Interpreter, reader: HintReader) -> Data:
    out: Data = {}
    for module, name in _ATTENTION:
        found = interpreter.name(module, name)
        if isinstance(found, ClassRef):
            out["attention_backend"] = sorted(m.name for m in interpreter.members(found))
            break
    for key, places in _LITERALS.items():
        for module, name in places:
            values = [v for h in reader.read(ast.Name(name), module) if h.kind == "literal" for v in h.values]
            if values:
                out[key] = sorted(map(str, values))
    out["kv_connector"] = sorted(_registered(interpreter.sources, _CONNECTORS, "register_connector"))
    models = interpreter.name(_MODELS, "_VLLM_MODELS")
    out["architecture"] = sorted(map(str, models)) if isinstance(models, dict) else []
    for key, module, name in _PARSERS:
        table = interpreter.name(module, name)
        if isinstance(table, dict):
            out[key] = sorted(map(str, table))
    for key, package in _OLD_PARSERS.items():
        if key not in out:
            modules = interpreter.sources.modules(package)
            names = {n for m in modules for n in _registered(interpreter.sources, m, "register_module")}
            out[key] = sorted(names)
    return {k: v for k, v in out.items() if v}


def _registered(sources: Sources, module: str, function: str) -> Iterator[str]:
    """Yield the names that calls of `X.function("name" or ["names"], ...)` in a module register."""
    tree = sources.tree(module)
    for node in ast.walk(tree) if tree else []:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == function:
            written = [*node.args[:1], *(k.value for k in node.keywords if k.arg == "name")]
            for value in written:
                names = value.elts if isinstance(value, ast.List) else [value]
                yield from (n.value for n in names if isinstance(n, ast.Constant) and isinstance(n.value, str))
