"""`baton render`: a recipe as files that Kubernetes, Dynamo or a shell runs."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from baton.base.errors import ConfigError
from baton.cli.files import aside
from baton.cli.options import RecipePath, Settings
from baton.recipe.deployment import resolve
from baton.recipe.overrides import read_text
from baton.recipe.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from baton.recipe.deployment import Deployment

Target: TypeAlias = Literal["kubernetes", "dynamo", "dynamo-v1beta1", "local"]


def render(
    recipe: RecipePath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write to.")],
    target: Annotated[Target, typer.Option(help="What will run it.")] = "kubernetes",
    settings: Settings = None,
    locked: Annotated[
        bool, typer.Option("--locked", help="Refuse what differs from the lock; pin its images.")
    ] = False,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Refuse a recipe that has errors.")] = True,
) -> None:
    """Write a deployment as files, each headed by the hash of the recipe. The same recipe gives the same bytes.

    Only files that baton rendered are replaced or removed. Exits 0 when they are written, 1 when the recipe has errors,
    2 when the recipe, an option or the folder won't do.
    """
    if check and not _is_sound(recipe, settings, target):
        raise typer.Exit(1)
    files = rendered(recipe, target, settings, locked=locked)
    written = write(output, files)
    print(f"{output}: {len(files)} files, {written} of them new or changed")


def rendered(
    recipe: Path, target: Target, settings: list[str] | None = None, *, locked: bool = False
) -> Mapping[str, str]:
    """Return the files of a recipe for a target, by relative path.

    Raises   ConfigError for a recipe that the target cannot run, or, with `locked`, one that differs from its lock
    """
    deployment = _deployment(recipe, target, settings, locked=locked)
    if target == "local":
        from baton.render import local  # noqa: PLC0415 - one target a run

        return local.files(deployment)
    if target == "kubernetes":
        from baton.render import kubernetes  # noqa: PLC0415 - as above

        return kubernetes.files(deployment)
    from baton.render import dynamo  # noqa: PLC0415 - as above

    return dynamo.files(deployment, "v1alpha1" if target == "dynamo" else "v1beta1")


def write(folder: Path, files: Mapping[str, str]) -> int:
    """Make a folder hold these files and no other that baton rendered; returns how many are new or changed.

    Raises   ConfigError if a file that baton did not render is in the way, or the folder cannot be written
    """
    try:
        old = _texts(folder)
        foreign = [name for name in files if (name in old and not _is_ours(old[name])) or (folder / name).is_dir()]
        if foreign:
            raise ConfigError(
                f"{folder}: {', '.join(foreign)} is there and not rendered by baton; give another folder with -o"
            )
        changed = {name: text for name, text in files.items() if old.get(name) != text}
        folder.mkdir(parents=True, exist_ok=True)
        _replace_together(folder, changed)
        for name, text in old.items():
            if name not in files and _is_ours(text):
                (folder / name).unlink()
    except OSError as error:
        raise ConfigError(f"{folder}: cannot write it: {error.strerror}; give another folder with -o") from error
    return len(changed)


def _deployment(recipe: Path, target: Target, settings: list[str] | None, *, locked: bool) -> Deployment:
    read = load_recipe(recipe, settings)
    engine = read.engine.model_copy(update={"version": _engine_version(read, target)})
    deployment = resolve(read.model_copy(update={"engine": engine}), recipe.parent)
    if not locked:
        return deployment
    from baton.cli.lock import locked_deployment  # noqa: PLC0415 - only when asked for

    return locked_deployment(recipe, settings, deployment)


def _engine_version(recipe: Recipe, target: Target) -> str:
    """The recipe's own release, but for Dynamo, whose images hold a vLLM of theirs."""
    if target in ("kubernetes", "local"):
        return recipe.engine.version
    from baton.engine.dynamo import vllm_of  # noqa: PLC0415 - one target a run

    return vllm_of(recipe.cluster.dynamo.version)


def _is_sound(recipe: Path, settings: list[str] | None, target: Target) -> bool:
    """Check the recipe as it will be rendered, and print what is wrong with it."""
    from baton.check.bundle import of_sources  # noqa: PLC0415 - the rules, for those who run them
    from baton.check.report.terminal import print_report  # noqa: PLC0415
    from baton.check.run import check, harm_of  # noqa: PLC0415
    from baton.check.text import Source  # noqa: PLC0415

    read = load_recipe(recipe, settings)
    version = _engine_version(read, target)
    engine = f"vllm-{version}" if version != read.engine.version else None
    report = check(of_sources([Source(str(recipe), read_text(recipe, settings))], engine=engine))
    found = Counter(harm_of(finding).severity for finding in report.findings)
    if not found["error"]:
        if found:
            words = ["baton", "check", str(recipe), *(word for each in settings or () for word in ("--set", each))]
            words += ["--engine", engine] if engine else []
            count = ", ".join(
                f"{n} {severity}{'s' if n > 1 else ''}" for severity, n in sorted(found.items(), reverse=True)
            )
            print(f"{recipe}: {count}; to read: {shlex.join(words)}", file=sys.stderr)
        return True
    from rich.console import Console  # noqa: PLC0415

    print_report(Console(stderr=True, highlight=False), report, quiet=True)
    return False


def _replace_together(folder: Path, files: Mapping[str, str]) -> None:
    """Write all files before the first takes its place, so that a full disk changes none."""
    with ExitStack() as written:
        new = {
            name: written.enter_context(aside(folder / name, text, mode=0o755 if text.startswith("#!") else 0o644))
            for name, text in files.items()
        }
        for name, path in new.items():
            path.replace(folder / name)


def _is_ours(text: str) -> bool:
    """Tell whether baton rendered a file: its header is the first line, or the second of a script."""
    from baton.render.documents import MARK  # noqa: PLC0415 - not for --help

    return any(line.startswith(MARK) for line in text.split("\n", 2)[:2])


def _texts(folder: Path) -> dict[str, str]:
    """The files that lie in a folder; renders have no folders of their own."""
    found = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    return {path.name: path.read_text("utf-8", "replace") for path in found}
