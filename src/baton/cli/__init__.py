"""Floor 6: one file a verb; the only place that chooses implementations.

A verb's module is imported when the verb is used, so that `baton version` does not pay for `baton up`.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from baton.base.errors import BatonError, ConfigError

VERBS = (
    "plan", "rehearse", "check", "migrate", "settings", "render", "lock", "secret", "test",
    "up", "status", "logs", "down", "prove", "gateway", "engine", "schema", "version",
)  # fmt: skip
_HIDDEN = ("supervise",)


class _Verbs(TyperGroup):
    """Finds verb `x` as the function `x` of `baton.cli.x`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The verbs, in the order a person meets them."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a verb; None if there is no such verb."""
        if cmd_name not in VERBS and cmd_name not in _HIDDEN:
            return None
        module = importlib.import_module(f"baton.cli.{cmd_name}")
        if isinstance(getattr(module, cmd_name), typer.Typer):
            return typer.main.get_command(getattr(module, cmd_name))
        verb = typer.Typer(add_completion=False)
        verb.command(cmd_name)(getattr(module, cmd_name))
        return typer.main.get_command(verb)


def main() -> NoReturn:
    """The console script.

    Exits with what the verb says, 2 for what the person gave, 1 for any other error of baton's, 130 on Ctrl-C.
    """
    app = typer.Typer(
        name="baton",
        cls=_Verbs,
        help="Disaggregated LLM serving on vLLM: prefill here, decode there, the KV cache handed over between them.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        callback=_nothing,
    )
    try:
        app(prog_name="baton")
    except BatonError as error:
        print(f"baton: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _nothing() -> None:
    """A group needs a callback; verbs do the work."""
