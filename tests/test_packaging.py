"""The wheel holds all that is needed and works from any directory."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from wsol import __version__

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel, built without a network."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("wsol-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel in it."""
    target = tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    done = subprocess.run([*pip, "--target", str(target), str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def run(installed, folder, *words):
    """Run the installed program in a folder that is not the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, "-P", str(installed / "bin" / "wsol"), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_wheel_holds_every_file_of_package_and_configuration(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {f"wsol/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    for suffix in ("*.py", "*.pyi", "*.typed", "*.txt", "*.safetensors", "*.html", "*.j2", "*.css", "*.js"):
        wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "wsol").rglob(suffix)}
    assert wanted | {"wsol/results/published.csv"} <= inside
    assert {"wsol/conf/dataset/shapes.yaml", "wsol/py.typed"} <= wanted
    assert not [name for name in inside if name.startswith(("conf/", "tests/")) or "__pycache__" in name]


def test_metadata_names_license_version_and_console_script(wheel):
    with zipfile.ZipFile(wheel) as archive:
        info = f"wsol-{__version__}.dist-info"
        metadata = archive.read(f"{info}/METADATA").decode()
        assert "wsol = wsol.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in archive.namelist()
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Python: >=3.11" in metadata
    assert "Provides-Extra: launchers" in metadata and "Provides-Extra: dev" in metadata


def test_installed_program_works_in_any_directory(installed, tmp_path):
    done = run(installed, tmp_path, "dataset.size=48", "--cfg", "job", "method=full")
    assert done.returncode == 0, done.stderr
    assert "size: 48" in done.stdout and "full:" in done.stdout
    assert not any(tmp_path.iterdir())
    shown = run(installed, tmp_path, "method=ful", "--info", "searchpath")
    assert "full" in shown.stderr and shown.returncode == 2


def test_installed_program_reads_its_own_configuration(installed, tmp_path):
    code = "import json, wsol.cli as c, wsol.io as p; print(json.dumps([str(p.conf_dir()), c.__file__]))"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True)
    places = [Path(place) for place in json.loads(done.stdout)]
    assert places == [installed / "wsol" / "conf", installed / "wsol" / "cli.py"]


def test_ci_takes_both_commands_from_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for marker, last in (("run", "wsol"), ("test", "pytest -n auto")):
        block = text.split(f"<!-- quick-start: {marker} -->")[1].split("```")[1]
        lines = block.strip().splitlines()
        assert lines[0] == "bash" and len(lines) == 2 and lines[1].endswith(last)
