"""Image files as pixels."""

import io
import logging
import warnings

import numpy as np
import pytest
from PIL import Image

from bnnrun.data.decode import decode, read_image
from bnnrun.errors import InputError


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


@pytest.mark.parametrize("side", [11, 20, 21, 1000])
def test_an_image_above_pillows_limit_is_refused_by_its_size(side, tmp_path, monkeypatch):
    """Pillow warns up to twice the limit, and raises above, each without width and height."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / "large.png"
    Image.new("RGB", (side, 10)).save(path)
    with pytest.raises(InputError) as caught:
        read_image(path, (3, 4, 4))
    assert str(caught.value) == f"{path}: too large: {side} x 10, at most 100 pixels"
    assert Image.MAX_IMAGE_PIXELS == 100
    Image.new("RGB", (10, 10)).save(path)
    assert read_image(path, (3, 4, 4)).shape == (3, 4, 4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as a user may have set it
    Image.new("RGB", (30, 10)).save(path)
    assert read_image(path, (3, 4, 4)).shape == (3, 4, 4)


def _photo() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 1, "a description of some length"
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 20)).save(content, "JPEG", exif=exif)
    return content.getvalue()


def test_warnings_of_odd_files_stay_inside(tmp_path, capfd):
    """Whatever a caller does with warnings: pytest turns each into an error here."""
    photo = _photo()
    start = photo.index(b"Exif\0\0")
    length = int.from_bytes(photo[start - 2 : start], "big")
    warned = 0
    for cut in range(8, length - 2):
        exif = cut.to_bytes(2, "big") + photo[start : start + cut - 2]
        content = photo[: start - 2] + exif + photo[start - 2 + length :]
        with warnings.catch_warnings(record=True) as raw:
            warnings.simplefilter("always")
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                image.getexif()
        warned += bool(raw)
        with warnings.catch_warnings(record=True) as ours:
            warnings.simplefilter("always")
            assert decode(content, tmp_path / "a.jpg", (3, 8, 8)).shape == (3, 8, 8)
        assert not ours
    assert warned > 10  # the files are such that Pillow does warn
    palette = Image.new("RGB", (6, 4)).quantize(2)
    palette.info["transparency"] = b"\0\xff"
    palette.save(tmp_path / "palette.png")
    read_image(tmp_path / "palette.png", (1, 4, 6))
    logging.getLogger("PIL.TiffImagePlugin").error("what Pillow logs of a file")
    assert capfd.readouterr().err == ""


def test_a_broken_orientation_leaves_the_image_as_it_is(tmp_path, monkeypatch):
    def broken(image: Image.Image) -> None:
        raise ValueError("not a TIFF file")

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", broken)
    assert decode(_photo(), tmp_path / "a.jpg", (3, 8, 8)).shape == (3, 8, 8)
