"""`bnnrun predict`, as a user calls it."""

import os

import numpy as np
import pytest
from digit_runs import assert_refused, digits
from PIL import Image

import bnnrun as package
from bnnrun.runtime import Classifier


def predicted(outcome) -> dict[str, list[str]]:
    """The other cells of each row of a CSV table, by the first."""
    assert outcome.status == 0, outcome.err
    header, *lines = outcome.out.splitlines()
    assert header == "image,class,score,next,its_score"
    return {name: cells for name, *cells in (line.rsplit(",", 4) for line in lines)}


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_predictions_are_the_packed_networks_own(here, tmp_path, name):
    pixels, pictures = digits(12)
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i:02}.png")
    names = [f"{i:02}.png" for i in range(12)]
    rows = predicted(here("predict", f"model={name}", *names, "format=csv"))
    assert list(rows) == names
    scores = package.load(tmp_path / name).scores(pixels)
    for row, each in zip(rows.values(), scores, strict=True):
        order = np.argsort(-each, kind="stable")
        assert row == [
            str(order[0]), f"{each[order[0]]:.3f}", str(order[1]), f"{each[order[1]]:.3f}",
        ]  # fmt: skip


def test_every_kernel_predicts_the_same(here, tmp_path):
    _, pictures = digits(3)
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    words = ["0.png", "1.png", "2.png", "format=csv"]
    rows = [
        predicted(here("predict", "model=mlp", *words, word))
        for word in ("kernel=xnor", "kernel=reference", "first_layer=planes", "first_layer=bytes")
    ]
    assert rows == rows[:1] * 4


def test_larger_pictures_colours_and_other_formats_are_taken(here, tmp_path):
    _, (picture, *_) = digits(1)
    picture.resize((64, 48)).save(tmp_path / "large.png")
    picture.convert("RGB").save(tmp_path / "colour.bmp")
    picture.convert("RGBA").save(tmp_path / "alpha.png")
    picture.save(tmp_path / "plain.png")
    picture.resize((32, 32)).save(tmp_path / "photo.jpg")
    names = ["large.png", "colour.bmp", "alpha.png", "plain.png", "photo.jpg"]
    rows = predicted(here("predict", "model=mlp", *names, "format=csv"))
    assert list(rows) == names
    assert rows["colour.bmp"] == rows["alpha.png"] == rows["plain.png"]
    assert all(row[0] in "0123456789" for row in rows.values())


def test_a_folder_of_pictures_is_predicted_by_name(here, tmp_path):
    _, pictures = digits(3)
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for name, picture in zip(("b.png", "a.png", "more/c.PNG"), pictures, strict=True):
        picture.save(tmp_path / "photos" / name, "PNG")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    rows = predicted(here("predict", "model=mlp", "photos", "format=csv"))
    assert list(rows) == ["photos/a.png", "photos/b.png", "photos/more/c.PNG"]


def test_predictions_are_shown_as_a_table_too(here, tmp_path):
    _, (picture, *_) = digits(1)
    picture.save(tmp_path / "a.png")
    outcome = here("predict", "model=mlp", "a.png")
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines()[1].split() == [
        "image",
        "class",
        "score",
        "next",
        "its",
        "score",
    ]
    (row,) = predicted(here("predict", "model=mlp", "a.png", "format=csv")).values()
    assert outcome.out.split()[-5:] == ["a.png", *row]


def test_files_of_awkward_names_are_predicted(here, tmp_path):
    names = [
        "epoch=3.png", "a b.png", "it's.png", 'a"b.png', "é.png", "(1).png", "a#b.png", "$x.png",
        "{a}.png", "100%.png", "a:b.png", "[1].png", "1e3.png", "lr=[1,2].png", "a,b.png",
    ]  # fmt: skip
    _, pictures = digits(len(names))
    for name, picture in zip(names, pictures, strict=True):
        picture.save(tmp_path / name, "PNG")
    outcome = here("predict", "model=mlp", *names)
    assert outcome.status == 0, outcome.err
    shown = [line.strip().rsplit(maxsplit=4)[0] for line in outcome.out.splitlines()[3:-1]]
    assert shown == names


@pytest.mark.parametrize("name", ["a\\b.png", "a\\'b.png", "a\\\\b.png"])
def test_a_name_with_a_backslash_is_predicted(here, tmp_path, name):
    """As every path of Windows has."""
    _, (picture, *_) = digits(1)
    picture.save(tmp_path / name, "PNG")
    assert list(predicted(here("predict", "model=mlp", name, "format=csv"))) == [name]


@pytest.mark.parametrize("name", ["photo[a].png", "photo[/a].png"])
def test_brackets_in_a_name_are_shown_as_they_are(here, tmp_path, name):
    """Neither a style that is swallowed nor the end of one that was never begun."""
    _, (picture, *_) = digits(1)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    picture.save(tmp_path / name, "PNG")
    outcome = here("predict", "model=mlp", name)
    assert outcome.status == 0, outcome.err
    assert name in outcome.out


BAD = ("text.png", "empty.png", "cut.png", "deep.png", "missing.png", "nothing", "", "n" * 300)


@pytest.fixture
def bad(here, tmp_path):
    """The command line beside good.png and what is no picture."""
    _, (picture, *_) = digits(1)
    picture.save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("no picture at all\n")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    (tmp_path / "nothing").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    return here


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_picture_is_refused_by_name(bad, name):
    outcome = bad("predict", "model=mlp", name)
    assert_refused(outcome, f"{name or repr(name)}: ")
    assert outcome.out == ""


def test_no_picture_named_is_refused(here):
    assert_refused(here("predict", "model=mlp"), "images", "a.png")


def test_the_good_ones_are_predicted_and_the_others_named(bad):
    outcome = bad("predict", "model=mlp", "format=csv", "good.png", *BAD, "good.png")
    assert outcome.status == 1
    rows = outcome.out.splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["good.png", "good.png"]
    assert rows[0] == rows[1]
    lines = [line for line in outcome.err.splitlines() if not line.startswith("on the processor")]
    assert sorted(line.split(": ")[1] for line in lines[:-1]) == sorted(n or "''" for n in BAD)
    assert lines[-1] == "bnnrun: images: 8 of 10 cannot be read"


def test_where_no_file_can_be_read_the_input_is_wrong(bad):
    outcome = bad("predict", "model=mlp", "text.png", "missing.png")
    assert outcome.status == 2
    assert [line.split(": ")[1] for line in outcome.err.splitlines()[:2]] == [
        "missing.png", "text.png",
    ]  # fmt: skip
    assert "none of the 2" in outcome.err.splitlines()[-1]


def test_a_folder_with_files_that_cannot_be_read_is_predicted_without_them(bad):
    outcome = bad("predict", "model=mlp", "format=csv", ".")
    assert outcome.status == 1
    assert [row.split(",")[0] for row in outcome.out.splitlines()[1:]] == ["good.png"]
    for name in ("text.png", "empty.png", "cut.png", "deep.png"):
        assert f"bnnrun: {name}: " in outcome.err


def test_a_folder_that_may_not_be_read_is_named(bad, monkeypatch):
    def refused(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refused)
    outcome = bad("predict", "model=mlp", "nothing", "good.png")
    assert outcome.status == 1
    assert "bnnrun: nothing: cannot be read (Permission denied)" in outcome.err


def test_many_pictures_are_held_in_memory_by_batches(here, tmp_path, monkeypatch):
    _, (picture, *_) = digits(1)
    picture.save(tmp_path / "a.png")
    seen, scores = [], Classifier.scores

    def noted(classifier, images):
        seen.append(len(images))
        return scores(classifier, images)

    monkeypatch.setattr(Classifier, "scores", noted)
    outcome = here("predict", "model=mlp", "format=csv", *["a.png"] * 250)
    assert outcome.status == 0, outcome.err
    assert len(outcome.out.splitlines()) == 251
    assert seen == [100, 100, 50]
