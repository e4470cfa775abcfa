"""The lock: what a recipe stood for when it was locked, so that a later render is of the same or is refused.

It knows what is written and what has changed, never how anything is found out: versions, catalogues and images come
from those who ask. Registries are not asked: a digest is in a reference, given by a person, or not known.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints
from ruamel.yaml import YAML

from baton.base.errors import ConfigError
from baton.recipe.cluster import ImageRef
from baton.recipe.deployment import Deployment
from baton.recipe.document import Strict, load

SUFFIX = ".lock"
_HEADER = """\
# Written by `baton lock`; `baton render --locked` refuses a recipe that no longer fits it.
# Keep it beside the recipe. Make it again with `baton lock` after a change that is meant.
"""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Use = Literal["engine", "gateway", "dynamo"]
"""what an image is for: vLLM's on Kubernetes, the gateway's, the runtime of the Dynamo targets"""


class LockedRelease(Strict):
    """A released program, and baton's catalogue of what it accepts."""

    name: str
    version: str
    catalogue_sha256: Sha256 | None = Field(description="Of the catalogue's file; null where baton has none.")


class LockedModel(Strict):
    """The weights; both null for a checkpoint folder."""

    repo: str | None
    revision: str | None


class LockedImage(Strict):
    """One image, as the recipe names it, without the cluster's registry."""

    reference: ImageRef
    digest: Digest | None = Field(description="Null where it is not known: nothing then pins the image.")


class Lock(Strict):
    """Everything that a render is made from."""

    lock: Literal[1] = Field(default=1, description="Version of the lock's format.")
    baton: str = Field(description="Release of baton that wrote it.")
    recipe_sha256: Sha256 = Field(description="Of the recipe's meaning, with `settings` in it.")
    settings: tuple[str, ...] = Field(default=(), strict=False, description="What --set changed, in order.")
    engine: LockedRelease
    dynamo: LockedRelease
    model: LockedModel
    images: dict[Use, LockedImage]

    @property
    def unknown(self) -> tuple[str, ...]:
        """References whose digest is not known."""
        return tuple(image.reference for image in self.images.values() if image.digest is None)


def load_lock(path: Path) -> Lock:
    """Read a lock.

    Raises   ConfigError naming file, line, field, value and what is allowed, or what to do where there is none
    """
    if not path.exists():
        raise ConfigError(f"{path}: there is no such lock; `baton lock` writes it beside the recipe")
    try:
        return load(path, Lock)
    except ConfigError as error:
        raise ConfigError(
            f"{error}\nmend it, or remove it and run `baton lock` (which knows no digests then)"
        ) from error


def dump_lock(lock: Lock) -> str:
    """Return the text of a lock; the same lock gives the same bytes, and `load_lock` reads it back equal."""
    yaml, out = YAML(typ="safe", pure=True), io.StringIO()
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment] # ruamel has it untyped
    yaml.width = 4096
    yaml.dump(lock.model_dump(mode="json"), out)
    return _HEADER + out.getvalue()


def locked_images(
    references: Mapping[Use, str], given: Mapping[str, str], before: Lock | None = None
) -> dict[Use, LockedImage]:
    """Return images with the digests that are known: in the reference, given by reference, or locked before.

    Raises   ConfigError for a digest given of an image that is not used, or against the one in its reference
    """
    unused = sorted(set(given) - set(references.values()))
    if unused:
        raise ConfigError(
            f"--digest {unused[0]}: the recipe does not use this image; it uses {', '.join(references.values())}"
        )
    found = {}
    for use, reference in references.items():
        _, _, written = reference.partition("@")
        if written and given.get(reference, written) != written:
            raise ConfigError(f"--digest {reference}={given[reference]}: the reference itself says {written}")
        old = before.images.get(use) if before is not None else None
        kept = old.digest if old is not None and old.reference == reference else None
        found[use] = LockedImage(reference=reference, digest=written or given.get(reference) or kept)
    return found


def drift(lock: Lock, now: Lock) -> list[str]:
    """Return what differs between a lock and what would be locked now, a line each; none when nothing does."""
    old, new = _facts(lock), _facts(now)
    if lock.recipe_sha256 != now.recipe_sha256:
        old["settings (--set)"], new["settings (--set)"] = ", ".join(lock.settings), ", ".join(now.settings)
    return [
        f"{what}: locked {old.get(what) or 'none'}, now {new.get(what) or 'none'}"
        for what in {**old, **new}
        if old.get(what) != new.get(what)
    ]


def pinned(deployment: Deployment, lock: Lock) -> Deployment:
    """Return a deployment whose images are those of the lock, by digest where the lock has one."""
    references = {use: _pinned(image) for use, image in lock.images.items()}
    cluster = deployment.cluster
    cluster = cluster.model_copy(
        update={
            "image": references.get("engine", cluster.image),
            "gateway_image": references.get("gateway", cluster.gateway_image),
            "dynamo": cluster.dynamo.model_copy(update={"image": references.get("dynamo", cluster.dynamo.image)}),
        }
    )
    return replace(deployment, cluster=cluster)


def _pinned(image: LockedImage) -> str:
    if image.digest is None or "@" in image.reference:
        return image.reference
    return f"{image.reference}@{image.digest}"


def _facts(lock: Lock) -> dict[str, str | None]:
    """What must not change, by what it is called; settings are not among them: the recipe's hash has them."""
    facts: dict[str, str | None] = {"baton": lock.baton, "recipe": lock.recipe_sha256}
    for what, release in (("engine", lock.engine), ("dynamo", lock.dynamo)):
        facts[what] = f"{release.name} {release.version}"
        facts[f"catalogue of {what}"] = release.catalogue_sha256
    facts |= {"model.repo": lock.model.repo, "model.revision": lock.model.revision}
    for use, image in lock.images.items():
        facts[f"image of {use}"] = _pinned(image)
    return facts
