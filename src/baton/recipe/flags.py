"""Flags of the engine and variables of its environment, as every part of a recipe writes them."""

from __future__ import annotations

from typing import Annotated

from pydantic import JsonValue, StringConstraints

FlagName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Flags = dict[FlagName, JsonValue]
Env = dict[EnvName, str]
