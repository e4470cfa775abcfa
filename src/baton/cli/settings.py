"""`baton settings`: the page of a recipe, every setting with what was published, what it does and where it exists."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from baton.cli.options import RecipePath, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from baton.recipe.deployment import Deployment
    from baton.recipe.recipe import Role
    from baton.render.overview import Room


def settings(recipe: RecipePath, settings: Settings = None) -> None:
    """Print a recipe's page as Markdown: layout, memory, eras, and a row for every setting.

    Exits 2 when the recipe or a setting won't do.
    """
    text = settings_page(recipe, settings)
    out = sys.stdout
    try:
        out.buffer.write(text.encode())
        out.flush()
    except BrokenPipeError:  # `| head` has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())


def settings_page(path: Path, settings: list[str] | None = None) -> str:
    """Return the page of a recipe file, with fields set.

    Raises   ConfigError for a recipe that is none, that cannot be rendered, or whose release the catalogue lacks
    """
    from baton.recipe.deployment import resolve  # noqa: PLC0415 - pydantic, for those who run it
    from baton.recipe.recipe import load_recipe  # noqa: PLC0415
    from baton.render.settings import page  # noqa: PLC0415

    recipe = load_recipe(path, settings)
    deployment = resolve(recipe, path.parent)
    return page(recipe, deployment, _rooms(path, settings, deployment))


def _rooms(path: Path, settings: list[str] | None, deployment: Deployment) -> Mapping[Role, Room]:
    """The memory of each role as `baton check` sums it; nothing for a role it cannot sum."""
    from baton.check.bundle import of_sources  # noqa: PLC0415 - the reader, for those who run it
    from baton.check.facts import capacity  # noqa: PLC0415
    from baton.check.text import Source  # noqa: PLC0415
    from baton.recipe.overrides import read_text  # noqa: PLC0415
    from baton.recipe.recipe import Role  # noqa: PLC0415
    from baton.render.overview import Room  # noqa: PLC0415

    accelerator = deployment.hardware.accelerator
    if accelerator == "cpu":
        return {}
    bundle = of_sources([Source(str(path), read_text(path, settings))], engine=None, accelerator=accelerator)
    found = {launch.role: capacity.capacity(launch) for launch in bundle.engines}
    return {
        role: Room(
            terms=held.terms,
            gpu_bytes=capacity.memory_bytes(accelerator),
            utilization=held.utilization,
            kv_bytes=held.kv_bytes,
            kv_dtype=held.kv_dtype,
            max_model_len=held.max_model_len,
            not_counted=capacity.NOT_COUNTED,
        )
        for role in Role
        if (held := found.get(role.value)) is not None
    }
