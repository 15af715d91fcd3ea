"""`dataset=folder`: a user's own images."""

import made_up
import numpy as np
import pytest
from made_up import assert_same, config, refused, write_folder
from PIL import Image

from bnnrun.data import load
from bnnrun.data.dataset import Dataset
from bnnrun.data.folder import read_image
from bnnrun.errors import InputError


def counts(dataset: Dataset) -> list[list[int]]:
    return [np.bincount(p.labels).tolist() for p in (dataset.train, dataset.valid, dataset.test)]


def test_a_folder_is_split_by_shares_of_each_class(tmp_path):
    write_folder(tmp_path, ("cat", "dog", "eel"), per_class=20)
    settings = config("folder", path=tmp_path)
    dataset = load(settings)
    assert counts(dataset) == [[14] * 3, [2] * 3, [4] * 3]  # 20 · 0.2 = 4, then 16 · 0.1 -> 2
    assert dataset.kind.classes == ("cat", "dog", "eel")
    assert dataset.kind.image_shape == dataset.train.pixels.shape[1:] == (3, 32, 32)
    assert not dataset.verified and "fixed seed" in dataset.notes[0]
    again = load(settings)
    for part in ("train", "valid", "test"):
        assert_same(getattr(again, part), getattr(dataset, part))
    assert again.sources == dataset.sources


def test_the_parts_of_a_folder_share_no_image(tmp_path):
    write_folder(tmp_path, per_class=30)
    dataset = load(config("folder", path=tmp_path, image_size=[9, 7]))
    seen = [
        p.tobytes() for part in (dataset.train, dataset.valid, dataset.test) for p in part.pixels
    ]
    assert len(seen) == len(set(seen)) == 60


def test_folders_train_valid_test_are_taken_as_they_are(tmp_path):
    write_folder(tmp_path, per_class=10, parts=("train", "valid", "test"), size=(9, 7))
    dataset = load(config("folder", path=tmp_path, image_size=[9, 7]))
    assert counts(dataset) == [[10, 10]] * 3 and dataset.notes == ()
    for seed, part in enumerate((dataset.train, dataset.valid, dataset.test)):
        written = made_up.make_images(20, (3, 9, 7), classes=2, seed=seed)
        by_class = np.argsort(written.labels, kind="stable")
        assert_same(part, written.take(by_class))  # PNG loses nothing, and nothing is resized


def test_a_missing_part_is_split_off_the_training_folder(tmp_path):
    write_folder(tmp_path, per_class=10, parts=("train", "test"))
    dataset = load(config("folder", path=tmp_path))
    assert counts(dataset) == [[9, 9], [1, 1], [10, 10]]
    assert [note.split(":")[0] for note in dataset.notes] == ["valid"]


def test_grey_images_of_another_size(tmp_path):
    write_folder(tmp_path)
    dataset = load(config("folder", path=tmp_path, channels=1, image_size=[8, 6]))
    assert dataset.train.pixels.shape[1:] == (1, 8, 6)


def test_a_damaged_image_is_named(tmp_path):
    write_folder(tmp_path)
    path = tmp_path / "cat" / "0000.png"
    content = path.read_bytes()
    for damaged in (b"", b"no image", content[: len(content) // 2]):
        path.write_bytes(damaged)
        line = refused(config("folder", path=tmp_path))
        assert f"{path}: not a whole image" in line and "BytesIO" not in line


def test_files_that_are_no_images_are_left_out_and_counted(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "cat" / "._0000.png").write_text("macOS leaves these")
    (tmp_path / ".hidden").mkdir()
    dataset = load(config("folder", path=tmp_path))
    assert dataset.kind.classes == ("cat", "dog")
    assert dataset.notes[-1].startswith("2 files that are no images")


def test_folders_of_another_form_are_refused(tmp_path):
    assert "dataset.path: not given" in refused(config("folder"))
    assert "no such folder" in refused(config("folder", path=tmp_path / "none"))
    assert "0 folders in it" in refused(config("folder", path=tmp_path))
    write_folder(tmp_path, parts=("train", "test"))
    (tmp_path / "test" / "eel").mkdir()
    assert "no such class in train; known: cat, dog" in refused(config("folder", path=tmp_path))
    settings = {"path": tmp_path}
    assert "dataset.channels=2" in refused(config("folder", channels=2, **settings))
    assert "[height,width]" in refused(config("folder", image_size=[32], **settings))
    assert "dataset.valid_share" in refused(config("folder", validation=5, **settings))


def test_a_folder_too_small_for_its_shares_is_refused(tmp_path):
    write_folder(tmp_path, per_class=2)
    assert "no image left for test" in refused(config("folder", path=tmp_path))


def test_images_of_every_mode_become_pixels(tmp_path):
    red = Image.new("RGB", (6, 4), (200, 10, 20))
    palette = red.quantize(2)
    palette.info["transparency"] = b"\0\xff"  # Pillow warns of it, unless asked for RGBA first
    for i, image in enumerate((red, red.convert("RGBA"), red.convert("L"), palette)):
        path = tmp_path / f"{i}.png"
        image.save(path)
        assert read_image(path, (3, 4, 6)).shape == (3, 4, 6)
        grey = read_image(path, (1, 4, 6))
        assert grey.dtype == np.uint8 and np.ptp(grey) == 0
    np.testing.assert_array_equal(read_image(tmp_path / "0.png", (3, 2, 2))[:, 0, 0], [200, 10, 20])


def test_a_photo_is_turned_upright_and_sixteen_bits_are_refused(tmp_path):
    photo = Image.fromarray(np.array([[0, 255]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: upside down
    photo.save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png", (1, 1, 2)).tolist() == [[[255, 0]]]
    Image.fromarray(np.full((2, 2), 40000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"deep\.png: an image of mode I;16, expected 8 bits"):
        read_image(tmp_path / "deep.png", (1, 2, 2))
