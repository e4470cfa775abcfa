"""Rehearsals of one's own GPU, as files that `baton rehearse --write` makes, for a plan to reckon with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from baton.base.errors import ConfigError
from baton.catalogue.calibration import Calibration
from baton.perf.rehearsed import Compared, compare, rehearsed
from baton.perf.step_time import Rehearsed
from baton.plan.question import Question


def read_calibrations(paths: Sequence[Path], question: Question) -> tuple[Rehearsed, list[str]]:
    """Return what rehearsals say of a question's steps, and a line about each; files of one role leave the other as is.

    Raises   ConfigError for a file that is none, or is of another model or another GPU
    """
    compared: list[Compared] = []
    lines = []
    for path in paths:
        found = _read(path)
        _check_same(path, "model", found.model.rsplit("/", 1)[-1].lower(), question.model.name.lower())
        _check_same(path, "accelerator", found.accelerator, question.accelerator)
        points = compare(found, question.model, question.gpu, question.factors)
        compared += points
        lines.append(f"{path}: {_said(points)}, {found.gpu}, {found.engine} {found.engine_version}")
    return rehearsed(compared), lines


def _read(path: Path) -> Calibration:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Calibration)
    except OSError as error:
        raise ConfigError(f"--calibration {path}: {error.strerror or error}") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"--calibration {path}: not what `baton rehearse --write` makes: {error}") from error
    if not found.points or any(point.step_s <= 0 for point in found.points):
        raise ConfigError(f"--calibration {path}: it needs points, each with a step_s above 0; rehearse again")
    return found


def _check_same(path: Path, what: str, got: str, asked: str) -> None:
    if got != asked:
        raise ConfigError(
            f"--calibration {path}: its {what} is {got}, the plan's is {asked}: give a rehearsal of {asked}, or none"
        )


def _said(points: Sequence[Compared]) -> str:
    by_role = {role: [one.ratio for one in points if one.point.role == role] for role in ("decode", "prefill")}
    return " and ".join(
        f"{len(ratios)} {role} points took {min(ratios):.2f} to {max(ratios):.2f} of the predicted time"
        for role, ratios in by_role.items()
        if ratios
    )
