"""Faults that were seen once, a small script each: it exits with 0 where the program does the right thing, else with 1."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPTS = [path for path in sorted(HERE.glob("*/[0-9]*")) if path.suffix in (".py", ".sh")]


@pytest.mark.long
@pytest.mark.parametrize("script", SCRIPTS, ids=[f"{path.parent.name}/{path.stem}" for path in SCRIPTS])
def test_case(script: Path, tmp_path: Path) -> None:
    for package in ("timm", "transformers") if script.parent.name == "networks" else ():
        pytest.importorskip(package)
    program = tmp_path / "wsol"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m wsol "$@"\n')
    program.chmod(0o755)
    paths = os.pathsep.join(map(str, (HERE.parents[1], HERE, script.parent)))
    env = {**os.environ, "PYTHONPATH": paths, "WSOL": str(program), "PY": sys.executable, "TMPDIR": str(tmp_path)}
    command = [sys.executable if script.suffix == ".py" else "bash", str(script)]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode == 2 and "mount:" in done.stderr:
        pytest.skip("only root can mount")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
