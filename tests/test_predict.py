"""`bnnrun predict`, as a user calls it."""

import numpy as np
import pytest
from digit_runs import assert_refused, digits
from PIL import Image

import bnnrun as package


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
        for word in ("kernel=xnor", "kernel=reference", "first=planes", "first=bytes")
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


def test_what_is_no_picture_is_refused_by_name(here, tmp_path):
    _, (picture, *_) = digits(1)
    picture.save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("no picture at all\n")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    (tmp_path / "nothing").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    for name in ("text.png", "empty.png", "cut.png", "deep.png", "missing.png", "nothing"):
        outcome = here("predict", "model=mlp", "good.png", name)
        assert_refused(outcome, f"{name}: ")
        assert "good.png" not in outcome.out
    assert_refused(here("predict", "model=mlp"), "images", "a.png")
