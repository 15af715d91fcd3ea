"""How images without a part of their own are divided: each by a hash of its name.

So the part of an image is a property of the image: another one more or less does not move it, and
neither does another folder above, another system, another order of reading.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Split:
    """Which images of a class were split off.

    Attributes:
        chosen:  (n,) whether each image was
        forced:  whether the hashes alone would have left a part of the class without an image
    """

    chosen: NDArray[np.bool_]
    forced: bool


def split_class(keys: list[bytes], part: str, share: float, others: int) -> Split:
    """About `share` of the images of a class: those whose `position` lies below it.

    Where that would be none, the class gives the image nearest to the threshold; where it would
    not leave an image for each of the other parts, those nearest to it stay. A class of one image
    gives none.

    Args:
        keys:   names of the images (`image_files.sort_key`)
        others: number of the parts that the remaining images are for
    """
    positions = np.array([position(key, part) for key in keys])
    below = int(np.count_nonzero(positions < share))
    least = min(1, len(keys) - 1)
    count = min(max(below, least), max(least, len(keys) - others))
    chosen = np.zeros(len(keys), bool)
    chosen[np.argsort(positions, kind="stable")[:count]] = True
    return Split(chosen, count != below and len(keys) > 1)


def position(key: bytes, part: str) -> float:
    """Where an image stands for a part, in [0, 1): the start of SHA-256 over part and name."""
    digest = hashlib.sha256(part.encode() + b"\0" + key).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # exact in a float
