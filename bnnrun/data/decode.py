"""One image file as the pixels that a network takes."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bnnrun.errors import InputError, printable

if TYPE_CHECKING:
    from PIL.Image import Image

Shape = tuple[int, int, int]  # (channels, height, width)
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")

# Without a handler of its own, Python prints what Pillow logs of odd files to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def read_image(path: Path, image_shape: Shape) -> NDArray[np.uint8]:
    """An image file as pixels of a network's shape; InputError where it is none, or damaged."""
    return decode(read_bytes(path), path, image_shape)


def read_bytes(path: Path) -> bytes:
    """The content of a file; InputError, with the reason, where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{printable(path)}: cannot be read ({error.strerror})") from None


def decode(content: bytes, path: Path, image_shape: Shape) -> NDArray[np.uint8]:
    """The bytes of an image file, turned upright, made grey or RGB, and resized.

    Shapes:
        returns (channels, height, width) uint8
    """
    from PIL import Image

    channels, height, width = image_shape
    name = printable(path)
    with warnings.catch_warnings():
        # Broken EXIF, odd palettes: the image is read all the same, and a user can do nothing.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        upright = _open_upright(content, name)
        if upright.mode not in MODES:
            raise InputError(f"{name}: an image of mode {upright.mode}, expected 8 bits a channel")
        # By way of RGB: Pillow resizes palettes and black-and-white by picking pixels, unsmoothed.
        upright = upright.convert("RGBA").convert("L" if channels == 1 else "RGB")
        if upright.size != (width, height):
            upright = upright.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(upright, np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _open_upright(content: bytes, name: str) -> "Image":
    from PIL import Image, ImageOps

    try:
        with _without_limit() as limit:
            image = Image.open(io.BytesIO(content))
        if limit is not None and image.width * image.height > limit:
            raise InputError(
                f"{name}: too large: {image.width} x {image.height}, at most {limit:,} pixels"
            )
        with image:
            image.load()
            try:
                return ImageOps.exif_transpose(image)
            except Exception:  # a broken EXIF block raises many kinds; the pixels are whole
                return image.copy()
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds over a damaged file
        # "cannot identify image file <_io.BytesIO object at 0x...>": the end says nothing.
        reason = " ".join(str(error).split()).partition(" <")[0]
        raise InputError(f"{name}: not a whole image ({type(error).__name__}: {reason})") from None


@contextmanager
def _without_limit() -> Iterator[int | None]:
    """Pillow's largest number of pixels, which it does not check itself meanwhile.

    Above it Pillow warns, above twice as much it raises, both without width and height.
    """
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield limit
    finally:
        Image.MAX_IMAGE_PIXELS = limit
