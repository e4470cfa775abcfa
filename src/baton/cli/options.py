"""Options that several verbs take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

RecipePath: TypeAlias = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file.")]
Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="FIELD=VALUE", help="Set a field of the recipe: cluster.namespace=serving. Repeats."),
]
