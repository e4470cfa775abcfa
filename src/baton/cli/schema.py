"""`baton schema`: what an editor needs to check and complete baton's files."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import BaseModel

from baton.recipe.recipe import Recipe
from baton.recipe.workers import WorkersFile


class Kind(StrEnum):
    """A file baton reads."""

    RECIPE = "recipe"
    WORKERS = "workers"


_TYPES: dict[Kind, type[BaseModel]] = {Kind.RECIPE: Recipe, Kind.WORKERS: WorkersFile}


def schema(kind: Annotated[Kind, typer.Argument(help="Which file.")] = Kind.RECIPE) -> None:
    """Print the JSON Schema of a recipe or of a workers file."""
    document = _TYPES[kind].model_json_schema()
    print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **document}, indent=2))
