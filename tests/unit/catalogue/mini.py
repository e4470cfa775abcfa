"""A package that declares its flags as vLLM does, in forty lines, for the tests of the extractor."""

from baton.catalogue.extract.sources import Sources

ARG_UTILS = """
import argparse
import json
import sys
from vllm.config import CacheConfig, SpecConfig, get_field
from vllm.platforms import current_platform

def get_kwargs(cls): ...
def optional_type(x): ...

class EngineArgs:
    @staticmethod
    def add_cli_args(parser):
        kwargs = get_kwargs(CacheConfig)
        kwargs["backend"]["choices"].remove("internal")
        group = parser.add_argument_group(title="CacheConfig", description="x")
        if not ("serve" in sys.argv):
            group.add_argument("--block-size", "-bs", **kwargs["block_size"])
        group.add_argument("--backend", **kwargs["backend"])
        group.add_argument("--prefix-caching", **{**kwargs["prefix_caching"], "default": None})
        group.add_argument("--spec", **kwargs["spec"])
        group.add_argument("--spec-config", type=optional_type(json.loads), default=None)
        group.add_argument("--folded", type=lambda s: s.lower().replace("-", "_"), choices=["a_b"], default="a_b")
        group.add_argument("--devices", choices=["auto"] + current_platform.devices, default="auto")
        return parser

class AsyncEngineArgs(EngineArgs):
    enable_log: bool = False
    @staticmethod
    def add_cli_args(parser, async_args_only: bool = False):
        if not async_args_only:
            parser = EngineArgs.add_cli_args(parser)
        parser.add_argument("--enable-log", action=argparse.BooleanOptionalAction, default=AsyncEngineArgs.enable_log)
        return parser
"""
CONFIG = '''
from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Literal, Optional, Union
from pydantic import Field
from vllm.names import Backend
if TYPE_CHECKING:
    from elsewhere import Size
else:
    Size = int

class Kind(Enum):
    FAST = "a.b.Fast"
    SLOW = "a.b.Slow"

@config
class SpecConfig:
    method: Literal["ngram", "mtp"] | None = None
    """How to guess."""
    num_tokens: Size = Field(default=3, ge=1)
    """[DEPRECATED] Guess less. Use `depth` instead."""
    kind: Kind = Kind.FAST
    hidden: int = field(init=False)

@config(config=dict(extra="forbid"))
class CacheConfig:
    block_size: Optional[int] = None
    backend: Backend = "plain"
    prefix_caching: Annotated[bool, "x"] = True
    spec: SpecConfig = Field(default_factory=SpecConfig)
    sizes: tuple[int, ...] = (1, 2 * 1024)
'''
FRONT = """
import json
from dataclasses import field
from vllm.engine.arg_utils import AsyncEngineArgs, get_kwargs
@config
class BaseArgs:
    host: str | None = None
    origins: list[str] = field(default_factory=lambda: ["*"])
    @classmethod
    def _customize(cls, kwargs):
        kwargs["origins"]["type"] = json.loads
        del kwargs["origins"]["nargs"]
        return kwargs
    @classmethod
    def add_cli_args(cls, parser):
        group = parser.add_argument_group(title=cls.__name__.replace("Args", ""))
        for key, value in cls._customize(get_kwargs(cls)).items():
            group.add_argument(f"--{key.replace('_', '-')}", **value)
        return parser
@config
class FrontArgs(BaseArgs):
    port: int = 8000
    @classmethod
    def _customize(cls, kwargs):
        return super()._customize(kwargs)
def make_arg_parser(parser):
    parser.add_argument("model_tag", type=str, nargs="?")
    parser.add_argument("--headless", action="store_true", default=False)
    parser = FrontArgs.add_cli_args(parser)
    return AsyncEngineArgs.add_cli_args(parser)
"""
ENVS = """
import os
from typing import TYPE_CHECKING, Literal
if TYPE_CHECKING:
    VLLM_PLAIN: int = 60
    VLLM_HOME: str = os.path.expanduser("~")
    VLLM_MODE: Literal["a", "b"] = "a"
def env_with_choices(name, default, choices, case_sensitive=True): ...
environment_variables = {
    # Seconds.
    "VLLM_PLAIN": lambda: int(os.getenv("VLLM_PLAIN", "60")),
    "VLLM_HOME": lambda: os.getenv("VLLM_HOME"),
    "VLLM_MODE": lambda: os.getenv("VLLM_MODE", "a"),
    "VLLM_BARE": lambda: bool(int(os.environ.get("VLLM_BARE", "0"))),
    # Deprecated: use --backend.
    "VLLM_CHOICE": env_with_choices("VLLM_CHOICE", "x", ["x", "y"], case_sensitive=False),
}
"""
FACTORY = """
class F: ...
F.register_connector("OneConnector", "m", "OneConnector")
F.register_connector("TwoConnector", "m", "TwoConnector")
"""
FILES = {
    "vllm/__init__.py": "",
    "vllm/names.py": 'from typing import Literal\nBackend = Literal["plain", "internal", "fast"]\n',
    "vllm/platforms/__init__.py": 'current_platform = detect()\nif os.getenv("VLLM_ELSEWHERE"):\n    pass\n',
    "vllm/config/__init__.py": CONFIG,
    "vllm/engine/arg_utils.py": ARG_UTILS,
    "vllm/entrypoints/__init__.py": "",
    "vllm/entrypoints/somewhere/cli_args.py": FRONT,
    "vllm/envs.py": ENVS,
    "vllm/distributed/kv_transfer/kv_connector/factory.py": FACTORY,
    "vllm/model_executor/models/registry.py": '_A = {"One": 1}\n_VLLM_MODELS = {**_A, **{"Two": 2}}\n',
}


def mini_vllm() -> Sources:
    """Return the package's sources."""
    return Sources(FILES)
