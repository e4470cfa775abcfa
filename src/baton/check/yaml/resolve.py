"""What YAML 1.1 makes of a scalar that is not quoted: `yes` is true, `010` is eight, `0o10` is a word.

As PyYAML's SafeLoader, but for two things that Kubernetes' reader leaves as words: dates, and `1:30` (ninety, in 1.1).
"""

from __future__ import annotations

from functools import lru_cache

from yaml.constructor import SafeConstructor
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

Value = str | int | float | bool | None

_PREFIX = "tag:yaml.org,2002:"
_RESOLVER = Resolver()
_CONSTRUCTOR = SafeConstructor()


@lru_cache(maxsize=8192)
def plain(text: str) -> Value:
    """Return the value of a plain scalar without a tag."""
    tag: str = _RESOLVER.resolve(ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tagged(tag, text)


def tagged(tag: str, text: str) -> Value:
    """Return the value of a scalar by its tag; the text itself if the tag is not one of YAML's or does not fit."""
    node = ScalarNode(tag, text)
    try:
        match tag.removeprefix(_PREFIX):
            case "null":
                return None
            case "bool":
                return bool(_CONSTRUCTOR.construct_yaml_bool(node))
            case "int" if ":" not in text:
                return int(_CONSTRUCTOR.construct_yaml_int(node))
            case "float" if ":" not in text:
                return float(_CONSTRUCTOR.construct_yaml_float(node))
    except (ValueError, KeyError, IndexError):
        return text
    return text
