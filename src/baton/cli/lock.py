"""`baton lock`: write down what a recipe stands for today, so that `baton render --locked` refuses anything else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated

import typer

from baton.base.errors import ConfigError
from baton.cli.files import replace
from baton.cli.options import RecipePath, Settings
from baton.recipe.deployment import Deployment, load_deployment
from baton.recipe.lock import (
    SUFFIX,
    Lock,
    LockedModel,
    LockedRelease,
    drift,
    dump_lock,
    load_lock,
    locked_images,
    pinned,
)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def lock(
    recipe: RecipePath,
    settings: Settings = None,
    digests: Annotated[
        list[str] | None,
        typer.Option("--digest", metavar="IMAGE=sha256:...", help="Digest of an image of the recipe. Repeats."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; RECIPE with .lock when not given.")
    ] = None,
) -> None:
    """Write the lock of a recipe: versions, catalogues, model revision, and image digests where they are known.

    Digests of an earlier lock are kept while the image's tag stays. No registry is asked.
    """
    path = output if output is not None else lock_path(recipe)
    before = load_lock(path) if path.exists() else None
    deployment = load_deployment(recipe, settings)
    found = lock_of(deployment, settings, before, _given(digests or []))
    try:
        replace(path, dump_lock(found))
    except OSError as error:
        raise ConfigError(f"{path}: cannot write it: {error.strerror}; choose another file with -o") from error
    print(f"{path}: {len(found.images) - len(found.unknown)} of {len(found.images)} images by digest")
    if found.unknown:
        _explain(deployment, found, _again(recipe, settings))


def lock_path(recipe: Path) -> Path:
    """Return where the lock of a recipe lies."""
    return recipe.with_suffix(SUFFIX)


def lock_of(
    deployment: Deployment,
    settings: Sequence[str] | None = None,
    before: Lock | None = None,
    digests: Mapping[str, str] | None = None,
) -> Lock:
    """Return the lock that a recipe's deployment has now; digests are those given, else those of the lock before.

    Raises   ConfigError for a digest of an image that it does not use
    """
    from baton.catalogue.engine import file_sha256  # noqa: PLC0415 - not for --help
    from baton.render.names import image, references  # noqa: PLC0415 - as above

    engine, dynamo = deployment.engine_name, deployment.cluster.dynamo.version
    used = references(deployment)
    plain = {image(deployment, reference): reference for reference in used.values()}
    given = {plain.get(name, name): digest for name, digest in (digests or {}).items()}
    return Lock(
        baton=version_of("baton"),
        recipe_sha256=deployment.recipe_digest,
        settings=tuple(settings or ()),
        engine=LockedRelease(
            name=engine,
            version=deployment.engine_version,
            catalogue_sha256=file_sha256(engine, deployment.engine_version),
        ),
        dynamo=LockedRelease(name="dynamo", version=dynamo, catalogue_sha256=file_sha256(f"dynamo.{engine}", dynamo)),
        model=LockedModel(repo=deployment.model.repo, revision=deployment.model.revision),
        images=locked_images(used, given, before),
    )


def locked_deployment(recipe: Path, settings: list[str] | None, deployment: Deployment) -> Deployment:
    """Return a deployment of a recipe with the images of the lock beside it.

    Raises   ConfigError without a lock, and with one that the recipe no longer fits, naming all that differs
    """
    path = lock_path(recipe)
    locked = load_lock(path)
    differs = drift(locked, lock_of(load_deployment(recipe, settings), settings, locked))
    if differs:
        lines = "".join(f"\n  {line}" for line in differs)
        raise ConfigError(
            f"{path} is not the lock of this any more:{lines}\nif that is meant, run `{_again(recipe, settings)}`"
        )
    return pinned(deployment, locked)


def _given(digests: Sequence[str]) -> dict[str, str]:
    found = {}
    for each in digests:
        image, _, digest = each.rpartition("=")
        if not image or not _DIGEST.fullmatch(digest):
            raise ConfigError(f"--digest {each!r}: expected IMAGE=sha256: and 64 hexadecimal digits")
        found[image] = digest
    return found


def _explain(deployment: Deployment, found: Lock, again: str) -> None:
    """Say which digests are not known, and how to give them."""
    from baton.render.names import image  # noqa: PLC0415 - not for --help

    print("Not known, so not pinned; any of these prints a digest:")
    for reference in found.unknown:
        pulled = image(deployment, reference)
        print(f"  {reference}")
        print(f"    docker buildx imagetools inspect {pulled} --format '{{{{.Manifest.Digest}}}}'")
        print(f"    crane digest {pulled}")
        print(f"    skopeo inspect --format '{{{{.Digest}}}}' docker://{pulled}")
    print(f"Then: {again} --digest {found.unknown[0]}=sha256:...")


def _again(recipe: Path, settings: list[str] | None) -> str:
    return shlex.join(["baton", "lock", str(recipe), *(word for each in settings or () for word in ("--set", each))])
