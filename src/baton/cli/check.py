"""`baton check`: hold recipes and other people's manifests against what their engine really accepts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from baton.base.errors import ConfigError
from baton.cli.options import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from baton.check.bundle import Bundle
    from baton.check.run import Report

Format: TypeAlias = Literal["text", "json", "sarif"]
FailOn: TypeAlias = Literal["error", "warning", "note", "never"]

STDIN = "-"
SUFFIXES = (".yaml", ".yml", ".sh", ".bash", ".sbatch", ".slurm")
_SEVERITIES = ("error", "warning", "note")


def check(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Recipes, manifests, scripts, folders of these; - for standard input."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Release of the engine, over what the files say, such as vllm-0.22.1.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(help="GPU it will run on, such as h200, where the files do not say.")
    ] = None,
    settings: Settings = None,
    form: Annotated[Format, typer.Option("--format", help="What to print.")] = "text",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    as_sarif: Annotated[bool, typer.Option("--sarif", help="The same as --format sarif.")] = False,
    fail_on: Annotated[FailOn, typer.Option(help="Least severity that makes the exit code 1.")] = "error",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Leave the notes out of the text.")] = False,
    explain: Annotated[
        str | None, typer.Option(metavar="CODE", help="Print the page of a code; `all` lists the codes.")
    ] = None,
) -> None:
    """Find what is wrong in vLLM and Dynamo manifests, scripts and baton's recipes, without running them.

    Exits 0 when nothing is found at or above --fail-on, 1 when something is, 2 when a file or an option won't do.
    """
    if explain is not None:
        _write(_explained(explain))
        return
    if as_json and as_sarif:
        raise ConfigError("--json and --sarif are two formats; give one")
    report = _report(files or [], engine, gpu, settings)
    _write(_rendered(report, "json" if as_json else "sarif" if as_sarif else form, quiet=quiet))
    raise typer.Exit(1 if _fails(report, fail_on) else 0)


def files_of(arguments: Sequence[str]) -> list[Path]:
    """Return the files that arguments name, each once: themselves, and those to check in folders.

    Raises   ConfigError naming every file that is not there, or a folder without a file to check
    """
    missing = [argument for argument in arguments if not Path(argument).exists()]
    if missing:
        raise ConfigError(f"no such file: {', '.join(missing)}")
    found: dict[Path, Path] = {}
    for argument in arguments:
        path = Path(argument)
        inside = list(_below(path)) if path.is_dir() else [path]
        if not inside:
            raise ConfigError(f"{argument}: no file below it ends in {', '.join(SUFFIXES)}; name the files themselves")
        for one in inside:
            found.setdefault(one.resolve(), one)
    return list(found.values())


def _below(folder: Path) -> Iterator[Path]:
    """Yield the files to check below a folder in order; hidden folders are not looked into."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES)


def _report(arguments: Sequence[str], engine: str | None, gpu: str | None, settings: list[str] | None) -> Report:
    from baton.check import run  # noqa: PLC0415 - the rules, for those who run them

    return run.check(_bundle(arguments, engine, _accelerator(gpu), settings))


def _bundle(
    arguments: Sequence[str], engine: str | None, accelerator: str | None, settings: list[str] | None
) -> Bundle:
    from baton.check.bundle import of_sources, read_bundle  # noqa: PLC0415 - as above
    from baton.check.text import Source  # noqa: PLC0415

    if not arguments:
        raise ConfigError("no file given: `baton check FILE...`, or - for standard input")
    if settings:
        if len(arguments) > 1 or arguments[0] == STDIN:
            raise ConfigError("--set changes one recipe; give its file and no other")
        from baton.recipe.overrides import read_text  # noqa: PLC0415 - only with --set

        sources = [Source(arguments[0], read_text(Path(arguments[0]), settings))]
        return of_sources(sources, engine=engine, accelerator=accelerator)
    if STDIN not in arguments:
        return read_bundle(files_of(arguments), engine=engine, accelerator=accelerator)
    if len(arguments) > 1:
        raise ConfigError(f"{STDIN} reads standard input and goes with no other file")
    text = sys.stdin.buffer.read().decode("utf-8-sig", errors="replace")
    return of_sources([Source("<stdin>", text)], engine=engine, accelerator=accelerator)


def _accelerator(gpu: str | None) -> str | None:
    """Return the catalogue's name of a GPU; raises ConfigError, which lists them, for one it has not got."""
    if gpu is None:
        return None
    from baton.catalogue.hardware import accelerators  # noqa: PLC0415 - only when asked for

    if gpu.lower() not in accelerators():
        raise ConfigError(f"--gpu {gpu!r}: the catalogue has {', '.join(accelerators())}")
    return gpu.lower()


def _rendered(report: Report, form: Format, *, quiet: bool) -> str:
    if form == "json":
        from baton.check.report.document import to_json  # noqa: PLC0415 - one format a run

        return to_json(report)
    if form == "sarif":
        from baton.check.report.sarif import to_sarif  # noqa: PLC0415 - as above

        return to_sarif(report)
    from baton.check.report.terminal import print_report  # noqa: PLC0415 - as above

    console = _console()
    with console.capture() as printed:
        print_report(console, report, quiet=quiet)
    return printed.get()


def _explained(code: str) -> str:
    from baton.check.report.pages import listing, page  # noqa: PLC0415 - the rules, for those who read them

    if code == "all":
        return listing()
    found = page(code)
    console = _console()
    if not console.is_terminal:
        return found
    from rich.markdown import Markdown  # noqa: PLC0415 - slow to import

    with console.capture() as printed:
        console.print(Markdown(found))
    return printed.get()


def _console() -> Console:
    from rich.console import Console  # noqa: PLC0415 - not for JSON

    return Console(highlight=False)


def _fails(report: Report, fail_on: FailOn) -> bool:
    from baton.check.run import harm_of  # noqa: PLC0415 - already there

    counted = _SEVERITIES[: _SEVERITIES.index(fail_on) + 1] if fail_on != "never" else ()
    return any(harm_of(finding).severity in counted for finding in report.findings)


def _write(text: str) -> None:
    """Write to standard output, whatever its encoding; a reader that has gone away (`| head`) changes nothing."""
    out = sys.stdout
    encoding = out.encoding or "utf-8"
    try:
        out.write(text.encode(encoding, errors="backslashreplace").decode(encoding))
        out.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
