"""`dataset=folder`: how a user's own images are split, read and told of."""

import shutil
import unicodedata
from pathlib import Path

import made_up
import numpy as np
import pytest
from made_up import assert_same, config, png, refused, write_folder

from bnnrun.data import describe, load, load_test
from bnnrun.data.dataset import Dataset
from bnnrun.data.folder_split import position, split_class


def counts(dataset: Dataset) -> list[list[int]]:
    return [np.bincount(p.labels).tolist() for p in (dataset.train, dataset.valid, dataset.test)]


def where(dataset: Dataset) -> dict[bytes, str]:
    """The part of each image, by its pixels."""
    return {image.tobytes(): part for part, images in dataset.parts.items()
            for image in images.pixels}  # fmt: skip


# ---- parts that have no folder


def test_a_folder_is_split_by_shares_of_each_class(tmp_path):
    write_folder(tmp_path, ("cat", "dog"), per_class=1000, size=(2, 2))
    dataset = load(config("folder", path=tmp_path, image_size=[2, 2]))
    # Binomial: 200 of 1,000 and 10 % of the other 800, each within four deviations.
    for train, valid, test in zip(*counts(dataset), strict=True):
        assert abs(test - 200) <= 51 and abs(valid - 80) <= 36 and train == 1000 - valid - test
    assert dataset.spec.classes == ("cat", "dog")
    assert not dataset.verified
    assert dataset.notes[1:] == (
        "test: about 0.2 of each class, split off train by the images' names",
        "valid: about 0.1 of each class, split off train by the images' names",
    )


def test_the_split_is_of_the_hashes_of_the_names(tmp_path):
    """The definition, image by image: where a class is large enough, nothing else decides."""
    write_folder(tmp_path, ("cat", "dog"), per_class=40)
    images = made_up.make_images(80, (3, 9, 7), classes=2)
    shares = {"test_share": 0.3, "valid_share": 0.5}
    parts = where(load(config("folder", path=tmp_path, image_size=[9, 7], **shares)))
    for i, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        key = f"{('cat', 'dog')[label]}/{i:04}.png".encode()
        is_test, is_valid = position(key, "test") < 0.3, position(key, "valid") < 0.5
        assert parts[pixels.tobytes()] == ("test" if is_test else "valid" if is_valid else "train")


def test_the_split_never_changes():
    """Values of the first version: another hash would mix training and test images of old runs."""
    assert position(b"cat/0000.png", "test") == pytest.approx(0.453674626002, abs=1e-11)
    assert position(b"cat/0000.png", "valid") == pytest.approx(0.816193824391, abs=1e-11)


def test_one_image_more_or_less_moves_no_other(tmp_path):
    write_folder(tmp_path, per_class=60)
    settings = config("folder", path=tmp_path, image_size=[9, 7])
    before = where(load(settings))
    removed = [tmp_path / "cat" / "0004.png", tmp_path / "dog" / "0033.png"]
    gone = {made_up.make_images(120, (3, 9, 7), classes=2).pixels[int(p.stem)].tobytes()
            for p in removed}  # fmt: skip
    for path in removed:
        path.unlink()
    assert where(load(settings)) == {k: v for k, v in before.items() if k not in gone}
    new = made_up.make_images(7, (3, 9, 7), seed=9).pixels
    for i, pixels in enumerate(new):
        (tmp_path / "cat" / f"new {i}.png").write_bytes(png(pixels))
    after = where(load(settings))
    assert {k: after[k] for k in before if k not in gone} == {
        k: v for k, v in before.items() if k not in gone
    }
    assert len(after) == 120 - 2 + 7


def test_the_split_does_not_depend_on_the_place_or_the_other_parts(tmp_path):
    write_folder(tmp_path / "a", per_class=50)
    shutil.copytree(tmp_path / "a", tmp_path / "far" / "below" / "b")
    settings = {"image_size": [9, 7]}
    first = load(config("folder", path=tmp_path / "a", **settings))
    other = load(config("folder", path=tmp_path / "far" / "below" / "b", **settings))
    for part, images in first.parts.items():
        assert_same(other.parts[part], images)
    assert other.part_md5 == first.part_md5
    # A larger share takes more images, and gives none back.
    larger = where(load(config("folder", path=tmp_path / "a", test_share=0.5, **settings)))
    assert all(larger[k] == "test" for k, part in where(first).items() if part == "test")


def test_names_in_either_unicode_form_are_split_alike(tmp_path):
    """One system stores é as one letter, another as e and an accent."""
    names = ("b c", 'é, "quoted"')
    for form in ("NFC", "NFD"):
        for name in names:
            folder = tmp_path / form / unicodedata.normalize(form, name)
            folder.mkdir(parents=True)
            for i, pixels in enumerate(made_up.make_images(40, (3, 4, 4)).pixels):
                file = unicodedata.normalize(form, f"ü {i}, it's.png")
                (folder / file).write_bytes(png(pixels))
    composed, decomposed = (
        load(config("folder", path=tmp_path / form, image_size=[4, 4])) for form in ("NFC", "NFD")
    )
    assert composed.spec.classes == decomposed.spec.classes == names
    assert composed.part_md5 == decomposed.part_md5
    for part, images in composed.parts.items():
        assert_same(decomposed.parts[part], images)


def test_a_small_class_has_an_image_of_each_part_and_that_is_told(tmp_path):
    write_folder(tmp_path, ("a", "b", "c", "d"), per_class=3)
    dataset = load(config("folder", path=tmp_path, test_share=0.001, valid_share=0.001))
    assert counts(dataset) == [[1] * 4] * 3
    forced_notes = [note for note in dataset.notes if "nearest to the threshold" in note]
    assert [note.split(" the images")[0] for note in forced_notes] == [
        "test: of a, b, c, d",
        "valid: of a, b, c, d",
    ]


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (2, 1), (3, 1), (40, 1)])
def test_a_class_without_a_name_below_the_share_gives_the_nearest(count, expected):
    keys = [f"x/{i}.png".encode() for i in range(count)]
    split = split_class(keys, "test", 1e-9, 2)
    assert split.chosen.sum() == expected and split.forced == (expected > 0)
    if expected:
        nearest = min(keys, key=lambda key: position(key, "test"))
        assert split.chosen[keys.index(nearest)]


def test_a_class_all_of_whose_names_are_below_the_share_keeps_one_to_train():
    keys = [f"{i}".encode() for i in range(10)]
    split = split_class(keys, "test", 0.999999, 2)
    assert split.chosen.sum() == 8 and split.forced
    farthest = sorted(keys, key=lambda key: position(key, "test"))[-2:]
    assert [key for key, off in zip(keys, split.chosen, strict=True) if not off] == sorted(farthest)


def test_classes_without_an_image_of_a_part_are_told(tmp_path):
    write_folder(tmp_path, per_class=30)
    (tmp_path / "eel").mkdir()
    shutil.copy(tmp_path / "cat" / "0000.png", tmp_path / "eel")
    dataset = load(config("folder", path=tmp_path))
    assert counts(dataset)[0][2] == 1
    assert "valid: no image of eel" in dataset.notes and "test: no image of eel" in dataset.notes


def test_a_folder_too_small_for_its_shares_is_refused(tmp_path):
    write_folder(tmp_path, per_class=2)
    assert "no image left for valid" in refused(config("folder", path=tmp_path))
    shutil.rmtree(tmp_path)
    write_folder(tmp_path, per_class=1)
    assert "no image left for valid" in refused(config("folder", path=tmp_path))


def test_the_parts_of_a_folder_share_no_image(tmp_path):
    write_folder(tmp_path, per_class=30)
    dataset = load(config("folder", path=tmp_path, image_size=[9, 7]))
    assert sum(map(len, dataset.parts.values())) == len(where(dataset)) == 60


# ---- parts that have one


def test_folders_train_valid_test_are_taken_as_they_are(tmp_path):
    write_folder(tmp_path, per_class=10, parts=("train", "valid", "test"), size=(9, 7))
    dataset = load(config("folder", path=tmp_path, image_size=[9, 7]))
    assert counts(dataset) == [[10, 10]] * 3
    assert dataset.notes == (
        "read 60 images of 2 classes (train/valid/test): cat 10/10/10, dog 10/10/10",
    )
    for seed, part in enumerate((dataset.train, dataset.valid, dataset.test)):
        written = made_up.make_images(20, (3, 9, 7), classes=2, seed=seed)
        by_class = np.argsort(written.labels, kind="stable")
        assert_same(part, written.take(by_class))  # PNG loses nothing, and nothing is resized


@pytest.mark.parametrize("valid", ["val", "Val", "validation", "VALID"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "TESTING")])
def test_the_parts_by_all_their_names(valid, train, test, tmp_path):
    write_folder(tmp_path, per_class=4, parts=(train, valid, test))
    dataset = load(config("folder", path=tmp_path, image_size=[9, 7]))
    assert counts(dataset) == [[4, 4]] * 3
    for seed, part in enumerate((dataset.train, dataset.valid, dataset.test)):
        written = made_up.make_images(8, (3, 9, 7), classes=2, seed=seed)
        assert_same(part, written.take(np.argsort(written.labels, kind="stable")))


def test_a_missing_part_is_split_off_the_training_folder(tmp_path):
    write_folder(tmp_path, per_class=50, parts=("train", "test"))
    dataset = load(config("folder", path=tmp_path))
    train, valid, test = counts(dataset)
    assert test == [50, 50] and [t + v for t, v in zip(train, valid, strict=True)] == [50, 50]
    assert [note.split(":")[0] for note in dataset.notes[1:]] == ["valid"]


def test_the_test_part_alone_is_read_without_the_others(tmp_path):
    write_folder(tmp_path, per_class=10, parts=("train", "test"))
    settings = config("folder", path=tmp_path)
    dataset = load(settings)
    for path in (tmp_path / "train").rglob("*.png"):
        path.write_bytes(b"damaged: not to be read")
    test = load_test(settings)
    assert_same(test.test, dataset.test)
    assert test.part_md5 == {"test": dataset.part_md5["test"]}
    assert test.described()["test"] == 20 and "train" not in test.described()
    shutil.rmtree(tmp_path / "train")
    assert_same(load_test(settings).test, dataset.test)
    assert describe(settings) == dataset.spec
    assert "no folder train in it" in refused(settings)


def test_a_test_part_that_is_split_off_is_read_alone(tmp_path):
    write_folder(tmp_path, per_class=30)
    settings = config("folder", path=tmp_path, image_size=[9, 7])
    dataset = load(settings)
    parts = where(dataset)
    images = made_up.make_images(60, (3, 9, 7), classes=2)
    for i, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        if parts[pixels.tobytes()] != "test":
            (tmp_path / ("cat", "dog")[label] / f"{i:04}.png").write_bytes(b"damaged")
    test = load_test(settings)
    assert_same(test.test, dataset.test)
    assert test.part_md5["test"] == dataset.part_md5["test"]
    assert test.notes[1] == dataset.notes[1]


# ---- checksums


def test_each_part_has_a_checksum_of_its_own(tmp_path):
    write_folder(tmp_path, per_class=4, parts=("train", "val", "test"))
    settings = config("folder", path=tmp_path)
    before = load(settings).part_md5
    assert list(before) == ["train", "valid", "test"] and len(set(before.values())) == 3
    shutil.copytree(tmp_path, tmp_path.with_name("elsewhere"))
    assert load(config("folder", path=tmp_path.with_name("elsewhere"))).part_md5 == before
    image = tmp_path / "test" / "cat" / "0000.png"
    image.rename(tmp_path / "test" / "dog" / "9999.png")  # another class
    after = load(settings).part_md5
    assert after["test"] != before["test"]
    assert (after["train"], after["valid"]) == (before["train"], before["valid"])


def test_the_counts_of_many_classes_are_told_by_the_extremes(tmp_path):
    classes = [f"class{i:03}" for i in range(120)]
    write_folder(tmp_path, classes, per_class=3, parts=("train", "val", "test"), size=(2, 2))
    (tmp_path / "train" / "class007" / "0007.png").unlink()
    (note,) = load(config("folder", path=tmp_path, image_size=[2, 2])).notes
    assert note == (
        "read 1,079 images of 120 classes (train/valid/test): from class007 2/3/3 to class119 3/3/3"
    )


# ---- settings


def test_grey_images_of_another_size(tmp_path):
    write_folder(tmp_path)
    dataset = load(config("folder", path=tmp_path, channels=1, image_size=[8, 6]))
    assert dataset.train.pixels.shape[1:] == (1, 8, 6)


def test_settings_that_do_not_fit_are_refused(tmp_path):
    write_folder(tmp_path)
    settings = {"path": tmp_path}
    assert "dataset.channels=2" in refused(config("folder", channels=2, **settings))
    assert "[height,width]" in refused(config("folder", image_size=[32], **settings))
    assert "dataset.valid_share" in refused(config("folder", validation=5, **settings))
    assert "dataset.path: not given" in refused(config("folder"))
    assert "no such folder" in refused(config("folder", path=tmp_path / "none"))
    file = tmp_path / "cat" / "0000.png"
    assert "no such folder" in refused(config("folder", path=file))


def test_a_damaged_image_is_named(tmp_path):
    write_folder(tmp_path)
    path = tmp_path / "cat" / "0000.png"
    content = path.read_bytes()
    for damaged in (b"", b"no image", content[: len(content) // 2]):
        path.write_bytes(damaged)
        line = refused(config("folder", path=tmp_path))
        assert f"{path}: not a whole image" in line and "BytesIO" not in line


def test_an_image_that_cannot_be_read_is_named_with_the_reason(tmp_path, monkeypatch):
    write_folder(tmp_path)
    path = tmp_path / "dog" / "0001.png"
    path.unlink()
    path.symlink_to(tmp_path / "gone.png")
    line = refused(config("folder", path=tmp_path))
    assert f"{path}: cannot be read (No such file or directory)" in line
    path.unlink()
    path.symlink_to(path)
    assert f"{path}: cannot be read (" in refused(config("folder", path=tmp_path))
    path.unlink()
    read_bytes = Path.read_bytes

    def denied(self: Path) -> bytes:
        if self.name == "0000.png":
            raise PermissionError(13, "Permission denied", str(self))
        return read_bytes(self)

    monkeypatch.setattr(Path, "read_bytes", denied)
    line = refused(config("folder", path=tmp_path))
    assert f"{tmp_path / 'cat' / '0000.png'}: cannot be read (Permission denied)" in line
