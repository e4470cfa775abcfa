"""`baton render`: files are written whole, nothing of anybody else's is touched, and nothing for a wrong recipe."""

import subprocess
import sys
from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.cli.render import rendered, write
from baton.render.documents import MARK

RECIPES = Path(__file__).parents[3] / "recipes"
HOPPER = RECIPES / "deepseek-r1-hopper-32gpu.yaml"
OURS = f"{MARK}x\na: 1\n"


def baton(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "baton", *args], capture_output=True, text=True, check=False)


def test_a_second_render_changes_nothing(tmp_path: Path) -> None:
    files = rendered(HOPPER, "kubernetes")
    assert write(tmp_path / "new" / "folder", files) == len(files)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "new" / "folder").iterdir()}
    assert write(tmp_path / "new" / "folder", rendered(HOPPER, "kubernetes")) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "new" / "folder").iterdir()}


def test_what_an_earlier_render_left_goes_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "stale.yaml").write_text(OURS)
    (tmp_path / "notes.md").write_text(f"what it says above:\n\n{MARK}x\n")
    (tmp_path / "folder").mkdir()
    assert write(tmp_path, {"a.yaml": OURS}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.yaml", "folder", "notes.md"]


def test_a_file_of_somebody_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"a\.yaml is there and not rendered by baton"):
        write(tmp_path, {"a.yaml": OURS, "b.yaml": OURS})
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]
    assert (tmp_path / "a.yaml").read_text() == "mine"


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(ConfigError, match="f: cannot write it"):
        write(tmp_path / "f", {"a.yaml": OURS})


def test_a_folder_in_the_way_of_a_file_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"b\.yaml is there and not rendered by baton; give another folder with -o"):
        write(tmp_path, {"a.yaml": OURS, "b.yaml": OURS})
    assert [path.name for path in tmp_path.iterdir()] == ["b.yaml"]


def test_a_file_that_cannot_be_written_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(OURS)
    (tmp_path / ".b.yaml.new").mkdir()  # as a full disk: the second file fails
    with pytest.raises(ConfigError):
        write(tmp_path, {"a.yaml": OURS + "b: 2\n", "b.yaml": OURS})
    assert (tmp_path / "a.yaml").read_text() == OURS
    assert not (tmp_path / ".a.yaml.new").exists()


def test_what_is_no_error_is_counted_and_can_be_read(tmp_path: Path) -> None:
    setting = "hardware.accelerator=h100-80gb"
    done = baton("render", str(HOPPER), "-o", str(tmp_path), "--set", setting)
    assert done.returncode == 0
    assert f"1 warning; to read: baton check {HOPPER} --set {setting}\n" in done.stderr
    assert baton("render", str(HOPPER), "-o", str(tmp_path)).stderr == ""


def test_settings_reach_the_files() -> None:
    files = rendered(HOPPER, "kubernetes", ["cluster.namespace=serving", "cluster.model_cache.storage_class=fast"])
    assert "namespace: dynamo-system" not in "".join(files.values())
    assert "storageClassName: fast" in files["model-cache.yaml"]


def test_an_engine_that_dynamo_does_not_ship_is_not_asked_for() -> None:
    assert "vllm-0.33.0" not in rendered(HOPPER, "dynamo")["deploy.yaml"]


def test_a_recipe_with_errors_is_not_rendered(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused = baton("render", str(HOPPER), "-o", str(out), "--set", "engine.flags.no-such-flag=1")
    assert refused.returncode == 1
    assert "no-such-flag" in refused.stderr
    assert not out.exists()
    forced = baton("render", str(HOPPER), "-o", str(out), "--set", "engine.flags.no-such-flag=1", "--no-check")
    assert forced.returncode == 0
    assert "--no-such-flag" in (out / "decode.yaml").read_text()


def test_a_setting_that_is_no_field_says_what_is_allowed(tmp_path: Path) -> None:
    refused = baton("render", str(HOPPER), "-o", str(tmp_path), "--set", "cluster.name_space=x")
    assert refused.returncode == 2
    assert "did you mean 'namespace'?" in refused.stderr
