"""Makes the catalogue from released packages.

`python -m baton.catalogue.extract vllm 0.32.0` adds or rebuilds one version, from --wheel FILE if that is given.
`python -m baton.catalogue.extract all` rebuilds every version there is, one wheel at a time, each deleted once it is
read (about 10 GB pass through); with --check it writes nothing, and exits with 1 if a file would not be the same to
the byte.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

from baton.base.errors import BatonError, ConfigError
from baton.catalogue.extract import dynamo, vllm
from baton.catalogue.extract.output import render, sha256
from baton.catalogue.extract.sources import read_wheel
from baton.catalogue.extract.wheel import cached, metadata, obtain, version_of

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


def rebuild(folder: Path, *, is_check: bool) -> int:
    """Rebuild every file of the catalogue; returns how many were not as they stood in `folder`."""
    num_changed = 0
    for engine, version in _released(folder):
        with tempfile.TemporaryDirectory() as scratch:
            distribution = DISTRIBUTIONS[engine]
            wheel = cached(distribution, version, CACHE.expanduser()) or obtain(distribution, version, Path(scratch))
            for name, text in build(engine, version, wheel).items():
                path = folder / name
                is_same = path.is_file() and path.read_text(encoding="utf-8") == text
                num_changed += not is_same
                print(f"{name}: {'the same' if is_same else 'differs' if is_check else 'rebuilt'}", flush=True)
                if not is_same and not is_check:
                    path.write_text(text, encoding="utf-8")
    return num_changed


def main(arguments: list[str] | None = None) -> int:
    """Write the catalogue files of one engine version, or of all; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m baton.catalogue.extract", description=__doc__)
    parser.add_argument("engine", choices=[*sorted(DISTRIBUTIONS), "all"])
    parser.add_argument("version", nargs="?", help="as released, for example 0.32.0; not with `all`")
    parser.add_argument("--wheel", type=Path, help="read this file instead of downloading one")
    parser.add_argument("--into", type=Path, default=ENGINES, help="folder to write to")
    parser.add_argument("--check", action="store_true", help="with `all`: write nothing, compare")
    given = parser.parse_args(arguments)
    is_all = given.engine == "all"
    if is_all == (given.version is not None) or (given.check and not is_all) or (given.wheel and is_all):
        parser.error("give `vllm VERSION` or `dynamo VERSION` [--wheel FILE], or `all` [--check]")
    try:
        if is_all:
            num_changed = rebuild(given.into, is_check=given.check)
            return 1 if given.check and num_changed else 0
        wheel = given.wheel or obtain(DISTRIBUTIONS[given.engine], given.version, CACHE.expanduser())
        for name, text in build(given.engine, given.version, wheel).items():
            (given.into / name).write_text(text, encoding="utf-8")
            print(f"{name}: {len(text)} bytes from {wheel.name}")
    except BatonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _released(folder: Path) -> list[tuple[str, str]]:
    """Every package and version that has a file in `folder`, vLLM last."""
    names = (re.match(r"(vllm|dynamo)(?:\.\w+)?-(\d[^-]*)\.json$", path.name) for path in folder.glob("*.json"))
    return sorted({(name[1], name[2]) for name in names if name is not None})


if __name__ == "__main__":
    sys.exit(main())
