"""What a user types, right and wrong, and what comes back."""

import io
import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from bnnrun.cli.verbs import VERBS

# (words, what the one line must name). Each is wrong input: status 2.
WRONG = {
    "verb": (["trian", "dataset=digits"], ["'trian'", "'train'"]),
    "group": (["train", "optimiser=adam"], ["optimiser", "'optimizer'"]),
    "choice": (["train", "dataset=digit"], ["dataset=digit", "'digits'"]),
    "key": (["train", "trainer.epoch=3"], ["trainer.epoch", "'trainer.epochs'"]),
    "leaf alone": (["train", "epochs=3"], ["epochs", "'trainer.epochs'"]),
    "negative count": (["train", "trainer.epochs=-3"], ["trainer.epochs=-3", ">= 1"]),
    "nan": (["train", "optimizer.lr=nan"], ["optimizer.lr=nan", "> 0"]),
    "zero batch": (["train", "trainer.batch_size=0"], ["trainer.batch_size=0", ">= 2"]),
    "word for a number": (
        ["train", "trainer.epochs=many"],
        ["trainer.epochs=many", "integer"],
    ),
    "fraction for a count": (["train", "arch.depth=2.5"], ["arch.depth=2.5", "integer"]),
    "word out of several": (["train", "device=gpu"], ["device=gpu", "auto, cpu, cuda"]),
    "no data": (
        ["train", "dataset=mnist", "dataset.root=nowhere"],
        ["nowhere/MNIST/raw/train-images-idx3-ubyte.gz", "9,912,422", "dataset.root="],
    ),
    "unknown file": (["train", "resume=no_such_run"], ["resume=no_such_run", "no run folder"]),
    "folder that cannot be made": (
        ["train", "dataset=digits", "hydra.run.dir=a_file/run"],
        ["a_file", "hydra.run.dir="],
    ),
    "results that cannot be written": (
        ["train", "dataset=digits", "results_dir=a_file"],
        ["results_dir=a_file", "no record can be written"],
    ),
    "batch larger than the set": (
        ["train", "dataset=digits", "trainer.batch_size=5000"],
        ["trainer.batch_size=5000", "1,197"],
    ),
    "sweep without -m": (["train", "seed=1,2"], ["seed=1,2", "-m"]),
    "sweep with a bad value": (["train", "-m", "seed=1,x"], ["seed=x", "integer"]),
    "sweep that is not listed": (
        ["train", "-m", "optimizer.lr=interval(0,1)"],
        ["interval(0,1)", "a,b,c"],
    ),
    "no convolution": (
        ["train", "dataset=digits", "arch=convnet", "arch.channels=[]"],
        ["arch.channels=[]", "one convolution"],
    ),
    "not an override": (["train", "seed"], ["'seed'", "key=value"]),
    "unknown flag": (["train", "--fast"], ["--fast", "--help"]),
    "group for a key": (["train", "trainer=3"], ["trainer=3", "group of keys"]),
    "network for a packed file": (["eval", "arch.width=5"], ["arch.width", "bnnrun eval"]),
    "arch for a packed file": (["eval", "arch=mlp"], ["arch", "bnnrun eval"]),
    "group of another verb": (["summary", "optimizer=adam"], ["optimizer", "bnnrun summary"]),
    "no such folder of choices": (["train", "-cd", "nowhere"], ["nowhere", "no such folder"]),
    "another primary": (["train", "-cn", "bench"], ["--config-name", "--config-dir"]),
    "-m without runs": (["summary", "-m"], ["-m", "summary"]),
    "action": (["data", "stat"], ["action=stat", "status"]),
    "no records": (["report", "results_dir=nothing"], ["results_dir=nothing", "no records"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_helpful_line_and_status_2(bnnrun, tmp_path, case):
    (tmp_path / "a_file").write_text("in the way")
    words, named = WRONG[case]
    outcome = bnnrun(*words)
    assert outcome.status == 2
    lines = outcome.err.splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("bnnrun: ")
    for text in named:
        assert text in lines[0]
    assert "Traceback" not in outcome.err + outcome.out


@pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write to read-only folders"
)
def test_a_read_only_output_folder_is_wrong_input(bnnrun, tmp_path):
    (tmp_path / "fixed").mkdir(mode=0o555)
    outcome = bnnrun("train", "dataset=digits", "hydra.run.dir=fixed/run")
    assert outcome.status == 2
    assert "fixed" in outcome.err
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_folder_that_nobody_may_write_is_wrong_input(bnnrun):
    outcome = bnnrun("train", "dataset=digits", "hydra.run.dir=/proc/bnnrun")
    assert outcome.status == 2
    assert "/proc/bnnrun" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_traceback_is_shown_with_debug_alone(bnnrun):
    outcome = bnnrun("train", "optimizer.lr=nan", "debug=true")
    assert outcome.status == 2
    assert "Traceback" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("bnnrun: optimizer.lr=nan")


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"], ["help"]], ids=str)
def test_help_of_the_tool_lists_the_verbs(bnnrun, words):
    outcome = bnnrun(*words)
    assert outcome.status == 0
    for verb in VERBS.values():
        assert verb.name in outcome.out


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_lists_its_keys_with_range_and_value(bnnrun, verb):
    outcome = bnnrun(verb, "--help")
    assert outcome.status == 0
    assert f"Usage: bnnrun {verb}" in outcome.out
    assert "debug=false" in outcome.out
    for example in VERBS[verb].examples:
        assert example in outcome.out


def test_help_shows_values_of_the_words_given_and_only_the_verbs_own_keys(bnnrun):
    shown = bnnrun("train", "dataset=digits", "--help").out
    assert "trainer.epochs=60  integer >= 1, epochs" in shown
    assert "digits*" in shown
    assert "trainer.epochs" not in bnnrun("report", "--help").out


def test_cfg_shows_the_configuration_and_writes_nothing(bnnrun, tmp_path):
    outcome = bnnrun("train", "dataset=digits", "--cfg", "job")
    assert outcome.status == 0
    assert "name: digits" in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_a_package_of_the_configuration_can_be_shown(bnnrun):
    outcome = bnnrun("train", "dataset=digits", "--cfg", "job", "--package", "trainer")
    assert outcome.status == 0, outcome.err
    assert "batch_size: " in outcome.out
    assert "dataset" not in outcome.out


def test_a_run_may_change_to_its_folder(bnnrun, tmp_path, monkeypatch):
    words = ("dataset=digits", "arch.width=8", "trainer.epochs=1", "threads=1")
    outcome = bnnrun("train", *words, "hydra.job.chdir=true", "hydra.run.dir=run")
    assert outcome.status == 0, outcome.err
    assert {"best.pt", "results", "train.log"} <= {
        path.name for path in (tmp_path / "run").iterdir()
    }
    assert not (tmp_path / "run" / ".run-lock").exists()


@pytest.mark.parametrize(
    "flags", [("--resolve",), ("--package", "trainer"), ("--experimental-rerun", "job.pickle")]
)
def test_a_flag_that_would_do_nothing_is_refused(bnnrun, tmp_path, flags):
    for verb in ("train", "pack"):
        outcome = bnnrun(verb, *flags)
        assert outcome.status == 2
        assert flags[0] in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_experiments_of_the_users_own_stand_in_a_folder_of_theirs(bnnrun, tmp_path):
    folder = tmp_path / "my conf" / "experiment"
    folder.mkdir(parents=True)
    own = "# @package _global_\ndefaults:\n  - override /dataset: digits\narch:\n  width: 8\n"
    (folder / "mine.yaml").write_text(own)
    words = ["experiment=mine", "trainer.epochs=1", "hydra.run.dir=run"]
    outcome = bnnrun("train", "--config-dir", "my conf", *words)
    assert outcome.status == 0, outcome.err
    (record,) = (tmp_path / "results" / "runs").glob("mine-test_error-*.json")
    assert json.loads(record.read_text())["config"]["arch"]["width"] == 8
    assert bnnrun("train", *words).status == 2
    outcome = bnnrun("train", "resume=run")
    assert outcome.status == 0, outcome.err


@pytest.fixture
def own(tmp_path):
    """A folder with a data set of the user's own: the digits under another name."""
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "mine.yaml").write_text(
        "name: digits\nroot: nowhere\nvalidation: 100\n"
    )
    return tmp_path / "conf"


def test_a_data_set_of_the_users_own_has_a_profile_beside_it(bnnrun, tmp_path, own):
    (own / "profile").mkdir()
    (own / "profile" / "mine.yaml").write_text(
        "defaults:\n  - /arch@_global_.arch: convnet\n  - _self_\nepochs: 1\nbatch_size: 50\n"
        "halve_every: 5\nwidth: 8\nchannels: [2, 2]\nlr:\n  sgd: 0.5\n"
    )
    words = ["-cd", "conf", "dataset=mine", "optimizer=sgd", "threads=1"]
    outcome = bnnrun("train", *words, "hydra.run.dir=run")
    assert outcome.status == 0, outcome.err
    (path,) = (tmp_path / "results" / "runs").glob("*.json")
    settings = json.loads(path.read_text())["config"]
    assert settings["dataset"]["validation"] == 100
    assert settings["arch"] == {"name": "convnet", "channels": [2, 2], "fc": [1024, 1024]}
    assert (settings["optimizer"]["lr"], settings["optimizer"]["lr_end"]) == (0.5, 0.01)
    assert bnnrun("pack", "run=run").status == 0
    outcome = bnnrun("eval", "-cd", "conf", "model=run", "dataset=mine")
    assert outcome.status == 0, outcome.err


def test_a_data_set_of_the_users_own_may_take_the_profile_of_another(bnnrun, own):
    outcome = bnnrun("train", "-cd", "conf", "dataset=mine", "--cfg", "job")
    assert outcome.status == 2
    assert "profile=mine: no profile/mine.yaml" in outcome.err
    assert "profile=NAME takes another: cifar10, digits" in outcome.err
    outcome = bnnrun("train", "-cd", "conf", "dataset=mine", "profile=mnist", "--cfg", "job")
    assert outcome.status == 0, outcome.err
    assert "width: 4096" in outcome.out
    outcome = bnnrun("summary", "-cd", "conf", "dataset=mine", "profile=digits")
    assert outcome.status == 0, outcome.err


def test_flags_may_stand_between_settings(bnnrun):
    outcome = bnnrun("train", "dataset=digits", "--cfg", "job", "seed=7")
    assert outcome.status == 0, outcome.err
    assert "seed: 7" in outcome.out


def test_values_that_hydra_cannot_read_are_quoted(bnnrun):
    for value in ("a=b", "50% (new)", "it's", "x:y z"):
        outcome = bnnrun("train", f"cell={value}", "--cfg", "job")
        assert outcome.status == 0, outcome.err
        assert value in outcome.out.replace("''", "'")


def test_verbs_that_are_no_runs_make_no_folder(bnnrun, tmp_path):
    for words in (["summary"], ["data", "status"], ["data"], ["doctor"]):
        assert bnnrun(*words).status == 0
    assert list(tmp_path.iterdir()) == []


def test_doctor_names_what_is_there_and_what_is_not(bnnrun):
    outcome = bnnrun("doctor")
    assert outcome.status == 0
    for word in ("torch", "processor", "CuPy", "data, mnist", "absent", "free"):
        assert word in outcome.out


def test_summary_counts_the_papers_network(bnnrun):
    """The paper's MLP: 36,806,656 weights and as many MACs, 4.39 MiB as bits."""
    rows = bnnrun("summary", "format=markdown").out.splitlines()
    assert rows[6].startswith("| sum |  | 36,806,656 | 24,596 | 36,806,656 | 4,609,024 |")
    assert [row.split(" | ")[-1] for row in rows[2:6]] == [
        "57.04 |",
        "73.90 |",
        "73.90 |",
        "52.32 |",
    ]


def test_summary_counts_the_bits_of_each_layers_weights(bnnrun):
    one = bnnrun("summary").out
    assert "weights sign, activations sign" in one and "bits, activations" not in one
    bits = ("binarization.weight_bits=[1,2,2,1]", "binarization.activation_bits=2")
    more = bnnrun("summary", *bits).out
    assert "weights sign of 1-2-2-1 bits, activations sign of 2 bits" in more
    table = pd.read_csv(io.StringIO(bnnrun("summary", "format=csv").out))
    of_bits = pd.read_csv(io.StringIO(bnnrun("summary", *bits, "format=csv").out))
    for name in ("packed_bytes", "packed_words"):
        assert list(of_bits[name] / table[name]) == [1, 2, 2, 1], name


@pytest.mark.parametrize(
    ("data", "float32", "bits", "arithmetic"),
    # mJ an image, reading each weight once from DRAM; the arithmetic in float32.
    [
        ("mnist", "23.9 to 47.8", "0.748 to 1.5", "0.169"),
        ("cifar10", "9.11 to 18.2", "0.285 to 0.57", "2.84"),
    ],
)
def test_summary_tells_the_energy_of_the_papers_tables(bnnrun, data, float32, bits, arithmetic):
    words = ["summary", f"dataset={data}"]
    rows = bnnrun(*words, "format=markdown").out.splitlines()[-3:]
    assert [row.split(" | ")[-1] for row in rows] == [
        f"{mj} |" for mj in (float32, bits, arithmetic)
    ]
    of_layers = pd.read_csv(io.StringIO(bnnrun(*words, "format=csv").out)).sum(numeric_only=True)
    for name, text in (("float32_dram_{}_mj", float32), ("packed_dram_{}_mj", bits)):
        ends = (of_layers[name.format(end)] for end in ("low", "high"))
        assert " to ".join(f"{end:.3g}" for end in ends) == text
    assert f"{of_layers['float32_arithmetic_mj']:.3g}" == arithmetic


COMPLETIONS = {
    "bnnrun ": ["train", "bench", "report", "summary", "data", "doctor"],
    "bnnrun tr": ["train"],
    "bnnrun train dataset=": ["dataset=digits", "dataset=mnist", "dataset=cifar10"],
    "bnnrun train optimizer.lr_s": ["optimizer.lr_scale="],
    "bnnrun data st": ["status"],
    "bnnrun nosuch x": [],
}


@pytest.mark.parametrize("line", COMPLETIONS)
def test_completion_behind_the_verb(bnnrun, monkeypatch, line):
    monkeypatch.setenv("COMP_LINE", line)
    outcome = bnnrun("-sc", "query=bash")
    assert outcome.status == 0
    assert set(COMPLETIONS[line]) <= set(outcome.out.split())
    assert "schema" not in outcome.out


def test_completion_in_a_real_bash(tmp_path):
    """The installed function, called as bash calls it for `bnnrun train dataset=d<TAB>`."""
    (tmp_path / "bnnrun").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bnnrun "$@"\n')
    (tmp_path / "bnnrun").chmod(0o755)
    script = """
        eval "$(bnnrun -sc install=bash)"
        COMP_LINE="bnnrun train dataset=d" COMP_POINT=22 COMP_CWORD=2
        hydra_bash_completion
        echo "${COMPREPLY[@]}"
    """
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path}
    shown = subprocess.run(
        ["bash", "-c", script], check=False, env=env, capture_output=True, text=True
    )
    assert shown.stdout.split() == ["dataset=digits"], shown.stderr


def test_one_failed_job_does_not_cost_the_others(bnnrun, tmp_path):
    words = ["train", "-m", "dataset=digits", "arch.width=8", "trainer.epochs=1"]
    outcome = bnnrun(*words, "trainer.batch_size=5000,100", "hydra.sweep.dir=runs")
    assert outcome.status == 2
    assert "job 0 failed" in outcome.err
    assert len(list((tmp_path / "results" / "runs").glob("*.json"))) == 1
