"""The wheel holds all that the tool needs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command: object, **options) -> str:
    words = [str(word) for word in command]
    shown = subprocess.run(words, check=False, capture_output=True, text=True, **options)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return shown.stdout


def test_the_installed_wheel_runs_from_elsewhere(tmp_path):
    """Built with the installed backend (no download), installed with --no-deps into a folder."""
    run(
        sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist", cwd=ROOT
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", site, wheel)
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("conf/train.yaml", "kernels/README.md", "py.typed", "report/page.html"):
        assert f"bnnrun/{name}" in names
    assert not [name for name in names if name.startswith(("tests/", "results/"))]

    env = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "bnnrun"]
    where = "import bnnrun, bnnrun.cli.compose as c; print(bnnrun.__file__, c.CONF)"
    for path in run(sys.executable, "-c", where, cwd=elsewhere, env=env).split():
        assert path.startswith(str(site)), path
    words = ["train", "dataset=digits", "arch.width=16", "trainer.epochs=1"]
    words += ["trainer.engine=reference"]  # the kernels would be compiled anew
    assert "test error" in run(*command, *words, cwd=elsewhere, env=env)
    assert "3,211,264" in run(*command, "summary", cwd=elsewhere, env=env)
    assert len(list((elsewhere / "results" / "runs").glob("*.json"))) == 1
