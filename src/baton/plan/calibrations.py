"""Rehearsals of one's own GPU, as files that `baton rehearse --write` makes, for a plan to reckon with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from baton.base.errors import ConfigError
from baton.catalogue.calibration import Calibration
from baton.catalogue.model import name_of
from baton.perf.rehearsed import Compared, compare, ratios, rehearsed
from baton.perf.step_time import Rehearsed
from baton.plan.question import Question


def read_calibrations(paths: Sequence[Path], question: Question) -> tuple[Rehearsed, list[str]]:
    """Return what rehearsals say of a question's steps, and a line about each; files of one role leave the other as is.

    Points are compared with one rank that has all layers, balanced routing and no exchange: what else a file was
    rehearsed with would count twice, for a plan has terms for it.
    Raises   ConfigError for a file that is none, or is of another model or GPU, or was rehearsed otherwise
    """
    compared: list[Compared] = []
    lines = []
    for path in paths:
        found = _read(path)
        _check_same(path, "model", name_of(found.model), question.model.name.lower())
        _check_same(path, "accelerator", found.accelerator, question.accelerator)
        _check_same(path, "num_layers", found.num_layers, question.model.shape.num_hidden_layers)
        _check_same(path, "routing", found.routing, "balanced")
        _check_same(path, "has_all2all", found.has_all2all, False)
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


def _check_same(path: Path, what: str, got: object, needed: object) -> None:
    if got != needed:
        raise ConfigError(
            f"--calibration {path}: its {what} is {got}, this plan needs {needed}: give a rehearsal with that, or none"
        )


def _said(points: Sequence[Compared]) -> str:
    return " and ".join(
        f"{len(of_role)} {role} points took {min(of_role):.2f} to {max(of_role):.2f} of the predicted time"
        for role, of_role in ratios(points).items()
    )
