"""`baton migrate`: a recipe or manifest moved to another release of its engine, every change with its reason."""

from __future__ import annotations

import difflib
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from baton.base.errors import ConfigError

if TYPE_CHECKING:
    from baton.check.migrate import Migration

_MARK = "\ufeff"  # of byte order; some editors put it at the beginning of a file


def migrate(
    file: Annotated[Path, typer.Argument(help="Recipe, manifest or script.")],
    to: Annotated[str, typer.Option("--to", help="Release to move to: vllm-0.33, dynamo-1.6.1.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the difference, leave the file as it is.")] = False,
) -> None:
    """Rewrite FILE for another engine release, keeping comments and order.

    Exits with 1 if errors are left that a person must decide.
    """
    from baton.check.migrate import migrate as moved  # noqa: PLC0415 - the catalogue is read only when asked for
    from baton.check.text import Source  # noqa: PLC0415

    text = _read(file)
    mark = _MARK if text.startswith(_MARK) else ""
    migration = moved(Source(str(file), text.removeprefix(mark)), to=to)
    result = mark + migration.text
    if dry_run:
        new, old = (
            t.replace("\r\n", "\n").splitlines(keepends=True) for t in (migration.text, text.removeprefix(mark))
        )
        print("".join(difflib.unified_diff(list(old), list(new), str(file), f"{file} on {to}")), end="")
    elif result != text:
        _write(file, result)
    _print(file, migration)
    if any(finding.harm is not None and finding.harm.severity == "error" for finding in migration.left):
        raise typer.Exit(1)


def _read(file: Path) -> str:
    """Return the text of a file, a byte order mark at its beginning among it."""
    try:
        return file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{file}: cannot read it: {reason}; give a recipe, a manifest or a script") from error


def _write(file: Path, text: str) -> None:
    """Replace a file in one step, its permissions kept: whoever reads it sees the old or the new one, whole."""
    try:
        target = file.resolve(strict=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise ConfigError(f"{file}: cannot write beside it: {error.strerror}; the file is as it was") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
            out.write(text)
        Path(name).chmod(stat.S_IMODE(target.stat().st_mode))
        Path(name).replace(target)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ConfigError(f"{file}: cannot write it: {error.strerror}; the file is as it was") from error
        raise


def _print(file: Path, migration: Migration) -> None:
    for change in migration.changes:
        print(f"{file}:{change.line}: {change.done}\n    because {change.reason}")
        for link in change.see:
            print(f"    see {link}")
    for finding in migration.left:
        severity = finding.harm.severity if finding.harm is not None else "note"
        fix = f"\n    {finding.fix.words}" if finding.fix is not None else ""
        print(f"{finding.span}: left for you: {severity}[{finding.code}]: {finding.message}{fix}")
    count, left = len(migration.changes), len(migration.left)
    print(f"{count or 'no'} change{'' if count == 1 else 's'}, {left or 'nothing'} left for you")
    if migration.num_others:
        print(f"{migration.num_others} more that the move does not touch: see baton check {file}")
