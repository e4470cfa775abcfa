"""`baton schema`: what an editor needs to check and complete baton's files."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import BaseModel

from baton.recipe.lock import Lock
from baton.recipe.recipe import Recipe
from baton.recipe.workers import WorkersFile


class Kind(StrEnum):
    """A file baton reads."""

    RECIPE = "recipe"
    WORKERS = "workers"
    LOCK = "lock"


_TYPES: dict[Kind, type[BaseModel]] = {Kind.RECIPE: Recipe, Kind.WORKERS: WorkersFile, Kind.LOCK: Lock}


def schema(kind: Annotated[Kind, typer.Argument(help="Which file.")] = Kind.RECIPE) -> None:
    """Print the JSON Schema of a recipe, of a workers file or of a lock."""
    document = _TYPES[kind].model_json_schema()
    print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **document}, indent=2))
