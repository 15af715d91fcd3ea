"""`dataset=folder`: which folders are parts and classes, which files are images, what is told."""

import errno
import json
import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from made_up import config, png, refused, write_folder

from bnnrun.data import describe, load, load_test

PICTURE = png(np.zeros((3, 4, 4), np.uint8))
linux = pytest.mark.skipif(sys.platform != "linux", reason="names of bytes are Linux's")


def write(root: Path, *names: str) -> None:
    """Small images of these names; a name that ends in "/" is an empty folder."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(PICTURE)


def classes(root: Path) -> tuple[str, ...]:
    return describe(config("folder", path=root)).classes


def notes_of(root: Path) -> str:
    return "\n".join(load(config("folder", path=root)).notes)


def size(root: Path) -> int:
    return sum(map(len, load(config("folder", path=root)).parts.values()))


# ---- what is no data


@pytest.mark.parametrize(
    "junk",
    [".git", ".ipynb_checkpoints", "__MACOSX", "@eaDir", ".DS_Store", "Thumbs.db", "desktop.ini",
     "System Volume Information"],
)  # fmt: skip
def test_hidden_folders_and_files_are_no_data_at_any_depth(junk, tmp_path):
    write_folder(tmp_path, parts=("train", "val", "test"), per_class=3)
    before = load(config("folder", path=tmp_path))
    for folder in ("", "train", "val", "train/cat", "test/dog"):
        write(tmp_path, f"{folder}/{junk}/x.png", f"{folder}/{junk}/more/y.png")
    after = load(config("folder", path=tmp_path))
    assert after.spec == before.spec and after.part_md5 == before.part_md5
    assert after.notes == before.notes


@pytest.mark.parametrize("junk", ["Thumbs.db", "desktop.ini", ".DS_Store", "THUMBS.DB"])
def test_hidden_files_are_not_even_counted(junk, tmp_path):
    write_folder(tmp_path)
    for folder in ("", "cat"):
        (tmp_path / folder / junk).write_bytes(b"x")
    assert "left out" not in notes_of(tmp_path)


def test_what_is_left_out_is_told_by_suffix(tmp_path):
    write_folder(tmp_path)
    for name in ("notes.txt", "a.heic", "b.HEIC", "._0000.png", "README"):
        (tmp_path / "cat" / name).write_text("macOS leaves the fourth")
    (tmp_path / "labels.csv").write_text("x")
    write(tmp_path, "cover.png")
    (note,) = (n for n in load(config("folder", path=tmp_path)).notes if "left out" in n)
    head, _, rest = note.partition(";")
    assert head.startswith("left out: 2 .heic, ") and rest == (
        " images in no folder of a class: 1 (cover.png)"
    )
    assert all(part in head for part in ("1 .csv", "1 .txt", "1 no suffix", "1 hidden"))
    assert size(tmp_path) == 40


@linux
def test_what_is_neither_file_nor_folder_is_told(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "owl").symlink_to("gone")  # a class, perhaps, so it is named
    os.mkfifo(tmp_path / "cat" / "pipe.png")  # reading it would wait for ever
    assert "left out: 1 no regular files, 1 links to nothing (owl)" in notes_of(tmp_path)
    assert size(tmp_path) == 40


def test_our_own_runs_and_results_are_no_classes(tmp_path, monkeypatch, capsys):
    """The usual way to work: in the folder of the images."""
    from bnnrun.cli.main import run

    write_folder(tmp_path, per_class=10)
    monkeypatch.chdir(tmp_path)
    words = ["dataset=folder", "dataset.path=.", "arch.channels=[4,4]", "arch.fc=[4]"]
    train = ["train", *words, "trainer.epochs=1", "trainer.batch_size=4", "device=cpu", "threads=1"]
    assert run([*train, "hydra.run.dir=outputs/train/a"]) == 0
    assert (
        "left out: outputs, results in ., bnnrun's own runs or results" in capsys.readouterr().out
    )
    assert run(["pack", "run=outputs/train/a"]) == 0
    assert run(["filters", "model=outputs/train/a", "hydra.run.dir=outputs/filters/b"]) == 0
    assert Path("outputs/filters/b/filters.png").exists()
    assert run(["eval", "model=outputs/train/a", "dataset=folder", "dataset.path=."]) == 0
    assert run(["report"]) == 0
    assert classes(tmp_path) == ("cat", "dog") and size(tmp_path) == 20
    capsys.readouterr()
    assert run([*train, "seed=1", "hydra.run.dir=outputs/train/c"]) == 0
    records = [json.loads(p.read_text()) for p in Path("results/runs").glob("*.json")]
    of_training = [r for r in records if r["quantity"] == "test_error"]
    assert len(of_training) == 2 and len({str(r["data"]["files"]) for r in of_training}) == 1


def test_a_class_may_be_called_results_or_outputs(tmp_path):
    write(tmp_path, *(f"{c}/{i}.png" for c in ("results", "outputs", "runs") for i in range(5)))
    assert classes(tmp_path) == ("outputs", "results", "runs")
    (tmp_path / "results" / "runs").mkdir()  # as a run with results_dir=results in PATH makes it
    assert classes(tmp_path) == ("outputs", "results", "runs")
    write(tmp_path, *(f"figures/{d}/{i}.png" for d in ("runs", "models") for i in range(5)))
    assert "figures" in classes(tmp_path)


# ---- parts


def test_two_names_of_one_part_are_refused_naming_both(tmp_path):
    write_folder(tmp_path, parts=("train", "val", "Validation"), per_class=2)
    assert "Validation and val both name the part valid" in refused(config("folder", path=tmp_path))


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["cat/1.png", "dog/1.png", "test/cat/1.png", "test/dog/1.png"], ["test beside cat, dog"]),
        (["cat/1.png", "dog/1.png", "valid/1.png"], ["valid beside cat, dog"]),
        (["train/cat/1.png", "train/dog/1.png", "extra/1.png"], ["train beside extra"]),
        (["train/cat/1.png", "train/dog/1.png", "test/1.png"], ["test: no folder of a class"]),
        (["train/cat/1.png", "train/dog/1.png", "test/"], ["test: no folder of a class"]),
        (["train/1.png", "test/1.png"], ["train: no folder of a class in it", "train/CLASS"]),
        (["valid/cat/1.png", "valid/dog/1.png"], ["no folder train in it", "it holds valid"]),
        (["train/cat/1.png", "train/dog/1.png", "test/cat/1.png", "test/dgo/1.png"],
         ["dgo: no such class in train", "did you mean 'dog'"]),
        (["train/cat/1.png", "train/dog/1.png", "test/Cat/1.png"], ["did you mean 'cat'"]),
    ],
)  # fmt: skip
def test_parts_that_are_not_certain_are_refused(names, parts, tmp_path):
    write(tmp_path, *names)
    line = refused(config("folder", path=tmp_path))
    assert str(tmp_path) in line and all(part in line for part in parts)


def test_a_class_may_be_called_train(tmp_path):
    write(tmp_path, *(f"{c}/{i}.png" for c in ("train", "car", "plane") for i in range(4)))
    assert classes(tmp_path) == ("car", "plane", "train")


def test_folders_beside_the_parts_without_images_are_told(tmp_path):
    write_folder(tmp_path, parts=("train", "val", "test"), per_class=2)
    (tmp_path / "docs").mkdir()
    assert "left out: docs, no part and without images" in notes_of(tmp_path)


def test_one_folder_as_two_classes_is_refused(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "kitten").symlink_to(tmp_path / "cat")
    assert "cat and kitten are one folder by a link" in refused(config("folder", path=tmp_path))


# ---- classes


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["eel/"], "no image in eel (empty)"),
        (["eel/more/"], "no image in eel (empty)"),
        (["eel/1.xyz", "eel/2.xyz", "owl/"], "no image in eel (2 .xyz), owl (empty)"),
        (["eel/.hidden.png"], "no image in eel (1 hidden)"),
    ],
)
@pytest.mark.parametrize("inside", ["", "train"])
def test_a_class_without_an_image_is_refused_by_name(names, part, inside, tmp_path):
    write_folder(tmp_path / inside)
    write(tmp_path / inside, *names)
    line = refused(config("folder", path=tmp_path))
    assert f"{tmp_path / inside}: {part}" in line.replace("/:", ":") and ".png" in line


def test_foreign_files_alone_in_a_test_class_are_refused_and_no_files_told(tmp_path):
    write_folder(tmp_path, parts=("train", "val", "test"), per_class=3)
    for path in (tmp_path / "test" / "dog").iterdir():
        path.rename(path.with_suffix(".xyz"))
    assert "test: no image in dog (3 .xyz)" in refused(config("folder", path=tmp_path))
    for path in (tmp_path / "test" / "dog").iterdir():
        path.unlink()
    assert "test: no image of dog" in notes_of(tmp_path)
    (tmp_path / "test" / "dog").rmdir()
    assert "test: no image of dog" in notes_of(tmp_path)


def test_suffixes_that_pillow_reads_are_images(tmp_path):
    write_folder(tmp_path)
    from PIL import Image

    for suffix in ("jfif", "jpe", "TIF", "pnm", "dib", "webp"):
        Image.new("RGB", (4, 4)).save(tmp_path / "dog" / f"a.{suffix}")
    assert size(tmp_path) == 46


def test_a_folder_that_cannot_be_read_is_named_with_the_reason(tmp_path, monkeypatch):
    write_folder(tmp_path)
    locked, scandir = tmp_path / "cat" / "locked", os.scandir
    locked.mkdir()

    def denied(path):
        if Path(path) == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    line = refused(config("folder", path=tmp_path))
    assert line == f"{locked}: cannot be read (Permission denied)"


# ---- links


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path):
    root, stored = tmp_path / "root", tmp_path / "stored"
    write_folder(stored, ("owl", "far"), per_class=10)
    write_folder(root, per_class=10)
    (root / "owl").symlink_to(stored / "owl")
    (root / "cat" / "more").symlink_to(stored / "far")
    assert size(root) == 40
    before = load(config("folder", path=root)).part_md5
    for name, target in {
        "cat/self": "cat", "cat/up": ".", "dog/above": "..", "dog/cats": "cat",
        "cat/twice": "../stored/far",
    }.items():  # fmt: skip
        (root / name).symlink_to(root / target)
    (stored / "owl" / "back").symlink_to(root)
    dataset = load(config("folder", path=root))
    assert dataset.part_md5 == before
    assert "links to folders read elsewhere, or back up: 6 (" in dataset.notes[-1]


def test_no_image_is_of_two_classes_by_a_link(tmp_path):
    root = tmp_path / "root"
    write_folder(root, per_class=10)
    write(tmp_path, *(f"shared/{i}.png" for i in range(5)), *(f"root/dog/in/{i}.png" for i in "ab"))
    assert size(root) == 22
    (root / "cat" / "dogs").symlink_to(root / "dog" / "in")  # sorts before dog's own
    assert size(root) == 22 and "or back up: 1" in notes_of(root)
    for name in ("cat", "dog"):
        (root / name / "shared").symlink_to(tmp_path / "shared")
    assert size(root) == 27 and "or back up: 2" in notes_of(root)


def test_one_folder_as_two_parts_is_told(tmp_path):
    write_folder(tmp_path, parts=("train", "test"), per_class=3)
    (tmp_path / "val").symlink_to(tmp_path / "test")
    dataset = load(config("folder", path=tmp_path))
    assert [len(part) for part in dataset.parts.values()] == [6, 6, 6]
    assert "valid and test are one folder: the same images" in dataset.notes


def test_a_link_does_not_change_the_name_of_an_image(tmp_path):
    write_folder(tmp_path, per_class=30)
    for name in ("cat", "dog"):
        (tmp_path / name / "real").mkdir()
        for path in sorted((tmp_path / name).glob("*.png"))[:10]:
            path.rename(tmp_path / name / "real" / path.name)
    before = load(config("folder", path=tmp_path)).part_md5
    (tmp_path / "cat" / "a link that sorts first").symlink_to(tmp_path / "cat" / "real")
    assert load(config("folder", path=tmp_path)).part_md5 == before


# ---- names


def test_awkward_names_are_taken_as_they_are(tmp_path):
    names = ("Cat", "cat", "a, b", "it's", 'say "x"', "[1]", "100%", "日本", "a=b", "$x", "#")
    write(tmp_path, *(f"{c}/{f}" for c in names for f in ("A.png", "a.PNG", "ü;.png", "- .png")))
    assert classes(tmp_path) == tuple(sorted(names))
    assert size(tmp_path) == 4 * len(names)


def test_a_class_in_both_unicode_forms_is_one_class(tmp_path):
    forms = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    write(tmp_path, *(f"{c}/{i}.png" for c in (*forms, "b") for i in range(5)))
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system makes one folder of both")
    assert classes(tmp_path) == ("b", forms[0])
    assert size(tmp_path) == 15
    assert "é: 2 folders, named in different Unicode forms" in notes_of(tmp_path)


def test_parts_in_other_unicode_forms_have_the_same_classes(tmp_path):
    for form, part in (("NFC", "train"), ("NFD", "val"), ("NFD", "test")):
        write(tmp_path, *(f"{part}/{unicodedata.normalize(form, c)}/1.png" for c in ("é", "ü")))
    assert [len(p) for p in load(config("folder", path=tmp_path)).parts.values()] == [2, 2, 2]


@linux
def test_a_class_of_bytes_that_are_no_text_is_refused(tmp_path):
    write_folder(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")).mkdir()
    line = refused(config("folder", path=tmp_path))
    assert f"{tmp_path}/caf\\xe9: the name of a class" in line and "rename the folder" in line
    line.encode()


@linux
def test_images_of_such_names_work(tmp_path, capsys):
    write_folder(tmp_path)
    raw = os.fsencode(tmp_path) + b"/cat/caf\xe9"
    Path(os.fsdecode(raw)).mkdir()
    for name in (b"/na\xefve.png", b"/plain.png"):
        Path(os.fsdecode(raw + name)).write_bytes(PICTURE)
    Path(os.fsdecode(raw + b"/x.\xff")).write_bytes(b"no image")
    Path(os.fsdecode(raw + b"/loop")).symlink_to(tmp_path)
    dataset = load(config("folder", path=tmp_path))
    assert sum(map(len, dataset.parts.values())) == 42
    json.dumps(dataset.described(), ensure_ascii=False).encode()
    print(*dataset.notes)
    Path(os.fsdecode(raw + b"/na\xefve.png")).write_bytes(b"damaged")
    assert "caf\\xe9/na\\xefve.png: not a whole image" in refused(config("folder", path=tmp_path))


def test_a_line_break_in_a_name_does_not_break_a_message(tmp_path):
    write_folder(tmp_path)
    write(tmp_path, "a\nb/1.xyz")
    assert "a\\nb (1 .xyz)" in refused(config("folder", path=tmp_path))
    write(tmp_path, "a\nb/1.png", "a\nb/2.png", "a\nb/3.png")
    assert all("\n" not in note for note in load(config("folder", path=tmp_path)).notes)


# ---- a level too high or too low


@pytest.mark.parametrize(
    ("names", "path", "meant"),
    [
        (["set/cat/1.png", "set/dog/1.png"], "", "set"),
        (["set/train/cat/1.png", "set/train/dog/1.png"], "", "set"),
        (["deep/in/set/cat/1.png", "deep/in/set/dog/1.png"], "", "deep/in/set"),
        (["set/train/cat/1.png", "set/val/cat/1.png", "other/x/1.png"], "", "set"),
        (["set/cat/1.png", "set/dog/1.png", "docs/readme.txt"], "", "set"),
        (["cat/1.png", "dog/1.png"], "cat", ""),
        (["train/cat/1.png", "train/dog/1.png"], "train/cat", "train"),
    ],
)
def test_a_path_a_level_off_is_refused_with_the_one_that_is_meant(names, path, meant, tmp_path):
    root = tmp_path / "root"
    write(root, *names)
    line = refused(config("folder", path=root / path))
    wanted = root / meant if meant else root
    assert f"is dataset.path={wanted} meant?" in line


def test_images_without_any_folder_are_counted(tmp_path):
    write(tmp_path / "flat", "1.png", "2.png")
    assert "0 folders and 2 images in it" in refused(config("folder", path=tmp_path / "flat"))


def test_classes_with_folders_alone_are_taken_and_told(tmp_path):
    write(tmp_path, *(f"{c}/{d}/{i}.png" for c in ("cat", "dog") for d in "ab" for i in range(5)))
    assert size(tmp_path) == 20
    assert f"cat: its images lie in folders below (a, b), taken as one class; if those are the "\
           f"classes, dataset.path={tmp_path / 'cat'}" in notes_of(tmp_path)  # fmt: skip


def test_a_training_folder_with_others_beside_it_is_told(tmp_path):
    write_folder(tmp_path, parts=("train", "test"), per_class=10)
    note = f"test beside {tmp_path / 'train'} not read; dataset.path={tmp_path} takes them"
    assert note in notes_of(tmp_path / "train")


def test_a_test_set_of_one_part_gives_its_classes(tmp_path):
    write_folder(tmp_path, ("cat", "dog", "eel"), parts=("TEST",), per_class=2)
    test = load_test(config("folder", path=tmp_path))
    assert test.spec.classes == ("cat", "dog", "eel")
    assert np.bincount(test.test.labels).tolist() == [2, 2, 2]
    assert test.notes == ("read 6 images of 3 classes (test): cat 2, dog 2, eel 2",)
