"""Words of keys that hold text: what is typed is what is meant, and the name on the disk."""

import json
import shutil
from pathlib import Path

import pytest
from command import configure
from digit_runs import digits
from hypothesis import given
from hypothesis import strategies as st

from bnnrun.cli.compose import keys_of
from bnnrun.cli.verbs import VERBS
from bnnrun.cli.words import QUOTED, canonical, escape, literal, quoted, text_of
from bnnrun.errors import InputError
from bnnrun.files import user_path

LOOK_ALIKES = [
    "2024_02_01", "1e3", "1.50", "007", "true", "False", "NULL", "inf", "nan", "null.png", "1_000",
]  # fmt: skip
ODD = [
    "${p}", "a${", "${}", "a\\${p}", "~x", "~", "a,b", "[x]", "[a", "{}", "{a:b}", "a#b", "a:b",
    "a=b", "it's", '"a', "'a'b", "a\\", "a\\\\", "a\\'b", "a\\\n", "-x", "+x", " a", "a ", "a  b",
    "😀", "ü", "a\nb", "\t", "choice(a,b)", "range(3)", "???", "*", "%s", "!a", "(1)", "\udcff",
]  # fmt: skip
TRAIN, PREDICT = keys_of(VERBS["train"]), keys_of(VERBS["predict"])


def pack_out(word: str) -> str | None:
    return configure("pack", f"out={word}").out


@pytest.mark.parametrize("name", [*LOOK_ALIKES, *ODD])
def test_a_text_is_taken_as_it_is_typed(name):
    expected = "./???" if name == "???" else name
    assert pack_out(name) == expected
    assert configure("train", f"cell=x{name}").cell == f"x{name}"


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1))
def test_any_text_comes_back_and_is_quoted_once(text):
    word = literal(f"out={text}", keys_of(VERBS["pack"]))
    assert literal(word, keys_of(VERBS["pack"])) == word
    if text != "null" and not QUOTED.fullmatch(text) and ":" not in text and text != "???":
        assert text_of(word) == text


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")))
def test_an_escaped_text_is_the_text(text):
    if text != "???":
        assert text_of(f"out={quoted(escape(text, resolvers=False))}") == text


def test_null_resolvers_and_the_users_own_quotes_are_hydras(monkeypatch):
    monkeypatch.setenv("SOME_FOLDER", "/data")
    assert pack_out("null") is None
    assert pack_out("${oc.env:SOME_FOLDER}/x") == "/data/x"
    assert pack_out("${oc.env:NOT_SET_HERE,${oc.env:SOME_FOLDER}}") == "/data"
    assert pack_out("${p}${oc.env:SOME_FOLDER}") == "${p}/data"
    assert pack_out("'1e3'") == pack_out('"1e3"') == "1e3"
    assert configure("train", "cell='a b'").cell == "a b"


def test_other_keys_are_read_as_before():
    typed = configure("train", "trainer.epochs=1_0", "optimizer.lr=1e-3", "norm.eps=1")
    assert (typed.trainer.epochs, typed.optimizer.lr) == (10, 0.001)
    assert typed.norm.eps == 1.0


def test_texts_of_a_list_are_kept():
    typed = configure("predict", "images=[1.50, true,1e3.png,null,'a,b',${p}]")
    assert typed.images == ["1.50", "true", "1e3.png", "null", "a,b", "${p}"]
    assert configure("predict", "images=[]").images == []


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("cell=1.50,true,a b", "cell='1.50','true',a b"),
        ("cell=choice(1e3,b)", "cell='1e3',b"),
        ("cell=choice(1e3)", "cell='1e3'"),
        ("cell='a,b',${oc.env:X,1},c", "cell='a,b',${oc.env:X,1},c"),
        ("cell=range(3)", "cell=range(3)"),
        ("seed=1,2", "seed=1,2"),
        ("experiment=2024_01,b", "experiment='2024_01',b"),
        ("cell=null,1", "cell=null,'1'"),
    ],
)
def test_each_value_of_a_sweep_is_a_text(word, expected):
    assert literal(word, TRAIN, multirun=True) == expected


def test_the_jobs_of_a_sweep_have_those_texts(bnnrun, tmp_path):
    words = ("dataset=digits", "arch.width=8", "trainer.epochs=1", "threads=1")
    places = ("1e3", "2024_01", "a b", "a\\")
    outcome = bnnrun(
        "train", "-m", *words, f"results_dir={','.join(places)}", "cell=choice(1.50,true)"
    )
    assert outcome.status == 0, outcome.err
    for place in places:
        record_files = (tmp_path / place / "runs").iterdir()
        assert {json.loads(path.read_text())["cell"] for path in record_files} == {"1.50", "true"}
    assert names_in(tmp_path) == {*places, "outputs"}


def test_an_empty_value_of_a_sweep_is_told():
    with pytest.raises(InputError, match="an empty value among several"):
        literal("cell=a,,b", TRAIN, multirun=True)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("hydra.run.dir=1e3", "hydra.run.dir='1e3'"),
        ("hydra.run.dir=runs/${now:%Y}", "hydra.run.dir=runs/${now:%Y}"),
        ("hydra.sweep.subdir=${seed}", "hydra.sweep.subdir=${seed}"),
        ("hydra.run.dir=a,b", "hydra.run.dir='a,b'"),
        ("hydra.job.name=true", "hydra.job.name='true'"),
        ("hydra.job.env_set.X=1e3", "hydra.job.env_set.X='1e3'"),
        ("hydra.job.chdir=true", "hydra.job.chdir=true"),
        ("hydra.output_subdir=null", "hydra.output_subdir=null"),
        ("hydra.searchpath=[2024]", "hydra.searchpath=['2024']"),
        ("++results_dir=1e3", "++results_dir='1e3'"),
        ("experiment=2024_01", "experiment='2024_01'"),
        ("dataset.path=1e3", "dataset.path='1e3'"),
    ],
)
def test_hydras_own_texts_are_kept_and_templates_work(word, expected):
    assert literal(word, TRAIN) == expected


def test_what_hydra_saved_means_what_it_meant():
    assert canonical("results_dir=1e3", TRAIN) == "results_dir='1000.0'"
    assert canonical("results_dir=a\\ b", TRAIN) == "results_dir='a b'"
    assert canonical("cell='\\${p}'", TRAIN) == "cell='\\${p}'"
    assert canonical("seed=1e3", TRAIN) == "seed=1e3"
    assert canonical("images=['a',1.50]", PREDICT) == "images=['a','1.5']"


def test_home_is_a_tilde_alone_or_before_a_slash(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert [str(user_path(p)) for p in ("~", "~/x", "~//x")] == [
        "/home/me", "/home/me/x", "/home/me/x",
    ]  # fmt: skip
    for name in ("~x.png", "~root/x", "a/~/b", "~~"):
        assert str(user_path(name)) == name
    assert literal("hydra.run.dir=~/x", TRAIN) == "hydra.run.dir=/home/me/x"
    assert literal("hydra.run.dir=~x", TRAIN) == "hydra.run.dir='~x'"


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def names_on_disk():
    """A name of each kind; the others where all are asked for."""
    kinds = {"1e3", "null.png", "${p}", "a,b", "[x]", "a=b", "it's", "a\\", "-x", "???", "a\nb"}
    for name in (*LOOK_ALIKES, *ODD):
        if name not in ("~", "\udcff"):
            yield pytest.param(name, marks=() if name in kinds else pytest.mark.exhaustive)


@pytest.mark.parametrize("name", list(names_on_disk()))
def test_the_name_on_the_disk_is_the_one_that_was_typed(
    bnnrun, runs_dir, tmp_path, monkeypatch, name
):
    for folder in ("out", "results", "images", "data"):
        (tmp_path / folder).mkdir()
    shutil.copy(runs_dir / "mlp" / "best.pt", tmp_path / "best.pt")

    def ran(folder: str, *words: str) -> str:
        monkeypatch.chdir(tmp_path / folder)
        outcome = bnnrun(*words)
        assert outcome.status == 0, outcome.err
        return outcome.out

    ran("out", "pack", "run=../best.pt", f"out={name}")
    assert names_in(tmp_path / "out") == {name}
    words = ("eval", "dataset=digits", "hydra.run.dir=../run/plain")
    ran("out", *words, f"model={name}", "results_dir=../r")
    (record,) = (tmp_path / "r" / "runs").iterdir()
    assert json.loads(record.read_text())["details"]["file"] == name
    model = f"model={tmp_path / 'out'}/{name}" if "${" not in name else f"model=../out/{name}"
    # Of Hydra's own keys ${...} is a template.
    run = "../run/x" if "${" in name else name
    words = ("eval", "dataset=digits", model, f"results_dir={name}", f"hydra.run.dir={run}")
    ran("results", *words)
    assert names_in(tmp_path / "results") == {name}
    assert run != name or {"runs", ".hydra"} <= names_in(tmp_path / "results" / name)
    _, (picture, *_) = digits(1)
    picture.save(tmp_path / "images" / name, "PNG")
    ran("images", "predict", model, name)
    for label in "ab":
        (tmp_path / "data" / name / label).mkdir(parents=True)
    ran("data", "summary", "dataset=folder", f"dataset.path={name}")


def test_behind_two_dashes_every_word_is_a_file(here, tmp_path):
    _, pictures = digits(2)
    for file, picture in zip(("-m", "kernel=x"), pictures, strict=True):
        picture.save(tmp_path / file, "PNG")
    outcome = here("predict", "model=mlp", "format=csv", "--", "-m", "kernel=x")
    assert outcome.status == 0, outcome.err
    assert [line.split(",")[0] for line in outcome.out.splitlines()[1:]] == ["-m", "kernel=x"]


def test_a_run_named_by_a_number_is_resumed(bnnrun, tmp_path):
    words = ("dataset=digits", "arch.width=8", "trainer.epochs=1", "threads=1", "cell=1.50")
    for name in ("2024_02_01", "it's, a\\"):
        outcome = bnnrun("train", *words, f"hydra.run.dir={name}", "results_dir=1e3")
        assert outcome.status == 0, outcome.err
        outcome = bnnrun("train", f"resume={name}")
        assert outcome.status == 0, outcome.err
    assert names_in(tmp_path) == {"2024_02_01", "it's, a\\", "1e3"}
    records = [json.loads(path.read_text()) for path in (tmp_path / "1e3" / "runs").iterdir()]
    assert {record["cell"] for record in records} == {"1.50"}
