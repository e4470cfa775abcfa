"""`--set field=value`: fields of a recipe set from the command line, in its text, so that all readers see the same."""

from __future__ import annotations

import io
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from baton.base.errors import ConfigError
from baton.recipe import document


def read_text(path: Path, settings: Sequence[str] | None = None) -> str:
    """Return a recipe file's text with fields set.

    Raises   ConfigError for a file that cannot be read, and as `override` does
    """
    return override(document.read_text(path, "Recipe"), settings or (), source=str(path))


def override(text: str, settings: Sequence[str], *, source: str) -> str:
    """Return a recipe's text with `field.of.field=value` set; values are YAML, lines above a change keep their place.

    Raises   ConfigError for a file that is no recipe; and, naming the setting, for one without "=", a value that is not
             YAML, or a field inside something that has no fields
    """
    if not settings:
        return text
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    # Folded lines and characters that YAML takes for line ends would not be read back equal.
    yaml.width, yaml.allow_unicode = 1 << 30, False
    try:
        tree = yaml.load(text)
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{source}: not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(tree, MutableMapping) or "baton" not in tree:
        raise ConfigError(f"{source}: --set changes recipes, and this file is none: it has no `baton: 1`")
    for setting in settings:
        _set(tree, setting)
    out = io.StringIO()
    yaml.dump(tree, out)
    return out.getvalue()


def _set(tree: MutableMapping[str, Any], setting: str) -> None:
    path, equals, value = setting.partition("=")
    *folders, name = path.split(".")
    if not equals or not all((*folders, name)):
        raise ConfigError(f"--set {setting!r}: expected field.of.field=value, such as cluster.namespace=serving")
    node: Any = tree
    for depth, folder in enumerate(folders):
        if isinstance(node, MutableMapping) and node.get(folder) is None:
            node[folder] = {}
        node = node[folder] if isinstance(node, MutableMapping) else None
        if not isinstance(node, MutableMapping):
            raise ConfigError(f"--set {setting!r}: {'.'.join(folders[: depth + 1])} is not a mapping in this recipe")
    try:
        node[name] = YAML(typ="safe").load(value)
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"--set {setting!r}: the value is not YAML: {str(error).splitlines()[0]}") from error
