"""Output that cannot hold every character, and locales that are not UTF-8."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from digit_runs import digits

TINY = ("dataset=digits", "arch.width=8", "trainer.epochs=1", "threads=1", "hydra.run.dir=rü")
COMMANDS = [
    ["--help"],
    ["train", "--help"],
    ["summary"],
    ["data", "status"],
    ["doctor"],
    ["train", *TINY, "cell=ü±"],
    ["pack", "run=rü"],
    ["eval", "model=rü", "dataset=digits", "--verify"],
    ["predict", "model=rü", "ü.png"],
    ["report"],
    ["report", "--check"],
    ["report", "cell=other"],
    ["train", "cell=ü", "seed=ü"],
    ["train", "resume=rü"],
]
SCRIPT = """
import json, sys
from bnnrun.cli.main import main
statuses = []
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = [word.encode().decode(sys.getfilesystemencoding(), "surrogateescape")
                    for word in words]
    try:
        main()
    except SystemExit as end:
        statuses.append(end.code)
print("statuses", *statuses)
"""


@pytest.mark.parametrize(
    "encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.exhaustive)]
)
def test_no_verb_fails_for_a_character(tmp_path, encoding):
    _, (picture, *_) = digits(1)
    picture.save(tmp_path / "ü.png")
    environment = {
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "100",
        "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(COMMANDS)],
        cwd=tmp_path, env=environment, capture_output=True, check=False,
    )  # fmt: skip
    out, err = done.stdout.decode(encoding), done.stderr.decode("ascii")
    assert "Traceback" not in err
    assert "UnicodeEncodeError" not in err
    wrong = {COMMANDS.index(words) for words in COMMANDS if "cell=other" in words}
    expected = [2 if i in wrong or "seed=ü" in w else 0 for i, w in enumerate(COMMANDS)]
    assert out.splitlines()[-1].split()[1:] == list(map(str, expected)), err
    assert "+---" in out, "the lines of tables degrade"
    assert "\\xb1" in out or encoding == "cp1252"
    (record, _) = (p for p in (tmp_path / "results/runs").iterdir() if "-test_error" in p.name)
    assert "test_error" in json.loads(record.read_bytes().decode("utf-8"))["quantity"]
    log = (tmp_path / "rü" / "train.log").read_bytes().decode("utf-8")
    assert "epoch 1/1" in log


def test_a_log_is_utf_8_whatever_the_locale(bnnrun, tmp_path):
    assert bnnrun("train", *TINY).status == 0
    assert "writes rü" in (tmp_path / "rü" / "train.log").read_bytes().decode("utf-8")
