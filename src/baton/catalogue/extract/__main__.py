"""`python -m baton.catalogue.extract vllm 0.32.0 [--wheel FILE]`: adds or rebuilds one version of the catalogue."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from baton.base.errors import BatonError, ConfigError
from baton.catalogue.extract import dynamo, vllm
from baton.catalogue.extract.output import render, sha256
from baton.catalogue.extract.sources import read_wheel
from baton.catalogue.extract.wheel import metadata, obtain, version_of

DISTRIBUTIONS = {"vllm": "vllm", "dynamo": "ai-dynamo"}
ENGINES = Path(__file__).parent.parent / "engines"
CACHE = Path("~/.cache/baton/wheels")


def build(engine: str, version: str, wheel: Path) -> dict[str, str]:
    """Return the catalogue files that a wheel gives, text by file name.

    Raises ConfigError if the wheel is another version, or declares its flags where this program does not look.
    """
    if version_of(wheel).split("+")[0] != version:
        raise ConfigError(f"{wheel.name} is version {version_of(wheel)}, not {version}: name the wheel's own version")
    source = {"file": wheel.name, "sha256": sha256(wheel)}
    try:
        if engine == "vllm":
            sections = vllm.extract(read_wheel(wheel, (vllm.PACKAGE,)))
            return {f"vllm-{version}.json": render({"engine": "vllm", "version": version, "source": source}, sections)}
        sources, out = read_wheel(wheel, (dynamo.PACKAGE,)), {}
        for program in ("dynamo.vllm", "dynamo.frontend"):
            head: dict[str, object] = {"engine": program, "version": version, "source": source}
            if program == "dynamo.vllm":
                head["takes_engine_flags_of"] = {"engine": "vllm", "version": dynamo.vllm_of(metadata(wheel))}
            out[f"{program}-{version}.json"] = render(head, dynamo.extract(sources, program))
    except ValueError as error:
        raise ConfigError(f"{wheel.name}: {error}") from error
    return out


def main(arguments: list[str] | None = None) -> int:
    """Write the catalogue files of one engine version; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m baton.catalogue.extract", description=__doc__)
    parser.add_argument("engine", choices=sorted(DISTRIBUTIONS))
    parser.add_argument("version", help="as released, for example 0.32.0")
    parser.add_argument("--wheel", type=Path, help="read this file instead of downloading one")
    parser.add_argument("--into", type=Path, default=ENGINES, help="folder to write to")
    given = parser.parse_args(arguments)
    try:
        wheel = given.wheel or obtain(DISTRIBUTIONS[given.engine], given.version, CACHE.expanduser())
        for name, text in build(given.engine, given.version, wheel).items():
            (given.into / name).write_text(text, encoding="utf-8")
            print(f"{name}: {len(text)} bytes from {wheel.name}")
    except BatonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
