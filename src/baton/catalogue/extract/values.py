"""What an expression can evaluate to besides a Python constant or container: names, classes, parsers, the unknown."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Unknown:
    """A value that only running the code would give; `text` is its source."""

    text: str = ""


class PartialList(list[object]):
    """A list of which some members are known and some depend on the machine."""


@dataclass(frozen=True)
class External:
    """A dotted name outside the wheel, such as `argparse.SUPPRESS` or `json.loads`."""

    name: str


@dataclass(frozen=True)
class ModuleRef:
    """A module of the wheel."""

    name: str


@dataclass(frozen=True)
class ClassRef:
    """A class of the wheel."""

    module: str
    node: ast.ClassDef = field(compare=False)
    name: str = ""

    def is_int_enum(self) -> bool:
        """Say whether members are numbers too, so that a number is taken for a member."""
        return any(ast.unparse(base).split(".")[-1] in {"IntEnum", "IntFlag"} for base in self.node.bases)

    def is_enum(self) -> bool:
        """Say whether a written base class is some Enum."""
        return any("Enum" in ast.unparse(base) for base in self.node.bases)

    def is_dict(self) -> bool:
        """Say whether the class is a dict with a name."""
        names = {ast.unparse(base).split("[")[0] for base in self.node.bases}
        return bool(names & {"dict", "OrderedDict", "defaultdict"})

    def is_dataclass(self) -> bool:
        """Say whether the class is decorated as a dataclass or as one of the engine's config classes."""
        names = (ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in self.node.decorator_list)
        return any(name.split(".")[-1] in {"config", "dataclass"} for name in names)


@dataclass(frozen=True)
class FunctionRef:
    """A function, lambda or method of the wheel; `bound` is its first argument if it is a method of something."""

    module: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda = field(compare=False)
    bound: tuple[object, ...] = field(default=(), compare=False)
    closure: Mapping[str, object] = field(default_factory=dict, compare=False)
    owner: ClassRef | None = None

    @property
    def name(self) -> str:
        """The function's name; "<lambda>" for a lambda."""
        return self.node.name if not isinstance(self.node, ast.Lambda) else "<lambda>"


@dataclass(frozen=True)
class FieldValue:
    """What `field(...)` or `Field(...)` was called with."""

    keywords: dict[str, object] = field(compare=False)


@dataclass(frozen=True)
class EnumMember:
    """A member of an enum class of the wheel; `label` is how a person writes it: its number, value or name."""

    enum: str
    name: str
    value: object = field(compare=False, default=None)
    label: object = field(compare=False, default="")


@dataclass
class Instance:
    """An object of a class of the wheel: only the class is known, and what was assigned to its attributes."""

    of: ClassRef
    attributes: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class OptionalOf:
    """An argparse `type` that also takes "None" and "" for None."""

    inner: object


@dataclass(frozen=True)
class ConfigType:
    """An argparse `type` that parses the JSON of a config class."""

    config: ClassRef


@dataclass(frozen=True)
class EnvDefault:
    """A default that an environment variable overrides."""

    env: str
    default: object = None


@dataclass
class Argument:
    """One call of add_argument: its option strings, keyword values and group title."""

    names: tuple[str, ...]
    keywords: dict[str, object]
    group: str


@dataclass
class Parser:
    """An argparse parser or group; groups share the list of their parser.

    `takes_underscores`: --a_b is --a-b. `takes_abbreviations`: the beginning of a flag that only it has stands for it.
    """

    arguments: list[Argument] = field(default_factory=list)
    group: str = ""
    takes_underscores: bool = True
    takes_abbreviations: bool = True


def is_known(value: object) -> bool:
    """Say whether a value is fully known: no `Unknown` anywhere inside it."""
    if isinstance(value, Unknown | PartialList):
        return False
    if isinstance(value, dict):
        return all(is_known(k) and is_known(v) for k, v in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_known, value))
    return True
