"""A recipe from the command line: its file, what `--set` changes in it, and the Deployment it resolves to."""

from __future__ import annotations

from pathlib import Path

from baton.base.errors import ConfigError
from baton.recipe.deployment import Deployment, resolve
from baton.recipe.document import parse
from baton.recipe.overrides import override
from baton.recipe.recipe import Recipe


def read_text(path: Path, settings: list[str] | None) -> str:
    """Return a recipe file's text with fields set.

    Raises   ConfigError for a file that cannot be read, or a setting that is no field=value
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot read it: {reason}; give the path of a recipe") from error
    return override(text, settings or [], source=str(path))


def read_recipe(path: Path, settings: list[str] | None = None) -> Recipe:
    """Read a recipe file with fields set.

    Raises   ConfigError naming file, line, field, value and what is allowed
    """
    return parse(read_text(path, settings), Recipe, source=str(path))


def read_deployment(path: Path, settings: list[str] | None = None) -> Deployment:
    """Read a recipe file with fields set, and make every choice it leaves open.

    Raises   ConfigError as `read_recipe` and `resolve` do
    """
    return resolve(read_recipe(path, settings), path.parent)
