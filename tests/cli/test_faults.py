"""What is wrong with a user's own YAML, with Hydra's plugins, and with folders, in one line."""

import errno
import os
import re

import pytest
from digit_runs import assert_refused

from bnnrun.cli.faults import PLUGINS, check_plugin
from bnnrun.cli.job import not_writable
from bnnrun.errors import InputError

HEAD = b"# @package _global_\n"
# (content of experiment/mine.yaml, what the line must name)
YAML = {
    "tab": (HEAD + b"arch:\n\twidth: 8\n", ["mine.yaml:3: found character '\\t'"]),
    "bracket": (HEAD + b"arch: {width: 8\n", ["mine.yaml:3: expected ',' or '}'"]),
    "twice": (HEAD + b"arch:\n  width: 8\n  width: 9\n", ["mine.yaml:4: found duplicate key"]),
    "alias": (HEAD + b"arch: *x\n", ["mine.yaml:2: found undefined alias"]),
    "python": (HEAD + b"arch: !!python/name:os.system\n", ["mine.yaml:2: could not determine"]),
    "two": (HEAD + b"a: 1\n---\nb: 2\n", ["mine.yaml:3:", "single document"]),
    "latin-1": (HEAD + b"cell: \xfc\n", ["mine.yaml:2: ", "UTF-8"]),
    "utf-16": ("cell: a\n".encode("utf-16"), ["mine.yaml:1: ", "UTF-8"]),
    "control": (HEAD + b"cell: a\x01\n", ["mine.yaml:2: ", "UTF-8"]),
    "list": (HEAD + b"- a\n", ["mine.yaml: "]),
    "number": (HEAD + b"3\n", ["mine.yaml: "]),
    "empty": (b"", ["mine.yaml: ", "# @package _global_"]),
    "no package": (b"arch:\n  width: 8\n", ["mine.yaml: ", "# @package _global_"]),
    "header": (b"# @package\narch:\n  width: 8\n", ["mine.yaml: ", "header"]),
    "key": (HEAD + b"arch:\n  widht: 8\n", ["mine.yaml:3: ", "widht"]),
    "type": (HEAD + b"trainer:\n  epochs: many\n", ["mine.yaml:3: ", "many"]),
    "choice": (HEAD + b"device: gpu\n", ["mine.yaml:2: ", "gpu", "auto, cpu, cuda"]),
    "defaults": (HEAD + b"defaults: 3\n", ["mine.yaml: ", "defaults"]),
    "cycle": (HEAD + b"defaults:\n  - mine\n", ["mine.yaml: it takes itself"]),
    "interpolation": (HEAD + b"arch:\n  width: ${x\n", ["mine.yaml: ", "arch.width"]),
    "range": (HEAD + b"trainer:\n  epochs: -1\n", ["trainer.epochs=-1: ", ">= 1"]),
}


@pytest.mark.parametrize("case", YAML)
def test_a_users_yaml_is_told_by_file_and_line(bnnrun, tmp_path, case):
    content, named = YAML[case]
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_bytes(content)
    words = ("train", "--config-dir", "conf", "experiment=mine")
    assert_refused(bnnrun(*words), *named)
    assert_refused(bnnrun(*words, "-m", "seed=0,1"), *named)
    assert not (tmp_path / "outputs").exists()


def test_an_experiment_may_be_named_by_a_number(bnnrun, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "2024_01.yaml").write_bytes(HEAD + b"seed: 7\n")
    outcome = bnnrun("train", "-cd", "conf", "experiment=2024_01", "--cfg", "job")
    assert outcome.status == 0, outcome.err
    assert "seed: 7" in outcome.out


@pytest.mark.parametrize(
    ("group", "choice"), [(group, choice) for group in PLUGINS for choice in PLUGINS[group]]
)
def test_a_plugin_that_is_not_installed_is_named_by_its_package(group, choice):
    check_plugin(group, choice, ["basic", choice])
    message = re.escape(f"{group}={choice}: ") + ".*" + re.escape(PLUGINS[group][choice])
    with pytest.raises(InputError, match=message):
        check_plugin(group, choice, ["basic"])


def test_hydras_own_settings_are_wrong_input(bnnrun, tmp_path):
    for words, named in (
        (["-m", "hydra/launcher=nosuch"], "hydra/launcher/nosuch"),
        (["-m", "hydra.run=3"], "hydra.run.KEY=VALUE"),
        *(
            ([*flag, word], said)
            for flag in ([], ["-m"])
            for word, said in (
                ("hydra.nosuch=3", "use +hydra.nosuch=3"),
                ("hydra.mode=NOSUCH", "expected one of RUN, MULTIRUN"),
                ("hydra.job.chdir=maybe", "expected true or false"),
                ("hydra.job.env_copy=[BNNRUN_NO_SUCH]", "no variable BNNRUN_NO_SUCH"),
            )
        ),
        (["hydra.run.dir=${nosuch}"], "nosuch"),
        (["hydra.mode=MULTIRUN"], "-m is the flag"),
        (["-m", "hydra.sweep.dir=${nosuch}"], "nosuch"),
    ):
        assert_refused(bnnrun("train", "dataset=digits", *words), named)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_names_the_setting_that_moves_it(bnnrun, tmp_path):
    (tmp_path / "a_file").write_text("in the way")
    for place in ("a_file/x", "a_file", *(["/proc/x"] if os.path.isdir("/proc") else [])):  # noqa: PTH112
        for words, named in (
            ([f"hydra.run.dir={place}"], "hydra.run.dir="),
            (["-m", f"hydra.sweep.dir={place}"], "hydra.sweep.dir="),
            ([f"results_dir={place}"], f"results_dir={place}"),
        ):
            assert_refused(bnnrun("train", "dataset=digits", *words), named)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR])
def test_every_refusal_of_the_system_is_told_alike(number):
    error = not_writable(OSError(number, os.strerror(number), "outputs/x"), multirun=True)
    assert isinstance(error, InputError)
    assert str(error) == (
        f"outputs/x: {os.strerror(number)}; hydra.sweep.dir=FOLDER puts the run elsewhere"
    )
