"""CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32x32, from the Python batches."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bnnrun.config import DatasetConfig
from bnnrun.data.dataset import OR_HOLD_OUT, Dataset, Images, ImageSpec, TestSet, split_in_order
from bnnrun.data.published import DataFile, check_file, holds_out_test, locate
from bnnrun.errors import InputError


def _published(name: str, md5: str, size: int, binary: str) -> DataFile:
    """A file of the Python version; the other versions' are no pickles.

    Args:
        binary: its name in the binary version
    """
    archive = "the Python version's archive: unpack it"
    return DataFile(
        f"cifar-10-batches-py/{name}",
        md5,
        size,
        mistaken=(
            ("cifar-10-python.tar.gz", archive),
            (f"cifar-10-batches-bin/{binary}", f"the binary version, {NEEDED}"),
            (f"cifar-10-batches-mat/{name}.mat", f"the MATLAB version, {NEEDED}"),
        ),
    )


NEEDED = "the Python version (cifar-10-batches-py) is needed"
TRAIN = tuple(
    _published(f"data_batch_{i}", md5, size, f"data_batch_{i}.bin")
    for i, md5, size in (
        (1, "c99cafc152244af753f735de768cd75f", 31035704),
        (2, "d4bba439e000b95fd0a9bffe97cbabec", 31035320),
        (3, "54ebc095f3ab1f0389bbae665268c751", 31035999),
        (4, "634d18415352ddfa80567beed471001a", 31035696),
        (5, "482c414d41f54cd18b22e5b47cb7c3cb", 31035623),
    )
)
TEST = _published("test_batch", "40351d587109b95175f43aff81a1287e", 31035526, "test_batch.bin")
META = _published("batches.meta", "5ff9c542aee3614f3951f8cda6e48888", 158, "batches.meta.txt")
FILES = (*TRAIN, TEST, META)
SPEC = ImageSpec(
    image_shape=(3, 32, 32),
    classes=("airplane", "automobile", "bird", "cat", "deer",
             "dog", "frog", "horse", "ship", "truck"),
    max_pixel=255,
)  # fmt: skip


def describe(config: DatasetConfig) -> ImageSpec:
    """Shape, classes and largest pixel value."""
    return SPEC


def read(config: DatasetConfig) -> Dataset:
    """The first 45,000 training images train, the last 5,000 validate, as the authors split."""
    held_out = holds_out_test(config, [TEST])
    sources = [check_file(config, file) for file in (*TRAIN, META)]
    if not held_out:
        sources.append(check_file(config, TEST, OR_HOLD_OUT))
    _check_names(config)
    batches = [_read_batch(config, file) for file in TRAIN]
    images = Images(
        np.concatenate([batch.pixels for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
    )
    del batches  # as large as the images, while the test batch is read
    test = None if held_out else _read_batch(config, TEST)
    return split_in_order(config, SPEC, images, test, tuple(sources))


def read_test(config: DatasetConfig) -> TestSet:
    """The official test set, or what is held out of the training images."""
    if holds_out_test(config, [TEST]):
        return read(config)
    sources = [check_file(config, TEST, OR_HOLD_OUT)]
    if locate(config.root, META)[0].is_file():  # a test batch alone is a whole test set
        sources.insert(0, check_file(config, META))
        _check_names(config)
    test = _read_batch(config, TEST)
    return TestSet(name=config.name, spec=SPEC, test=test, sources=tuple(sources))


def _read_batch(config: DatasetConfig, file: DataFile) -> Images:
    """{'data': (n, 3072) uint8, red, green, blue planes of rows; 'labels': n integers}."""
    path, _ = locate(config.root, file)
    content = unpickle(path)
    pixels, labels = content.get("data"), content.get("labels")
    size = int(np.prod(SPEC.image_shape))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise InputError(f"{path}: holds no 'data' of unsigned bytes; expected a CIFAR-10 batch")
    if pixels.ndim != 2 or pixels.shape[1] != size or not len(pixels):
        raise InputError(f"{path}: 'data' of shape {pixels.shape}, expected (images, {size})")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise InputError(f"{path}: holds no list of {len(pixels):,} 'labels', one an image")
    if not all(isinstance(label, int) and 0 <= label <= 9 for label in labels):
        raise InputError(f"{path}: 'labels' are not all integers from 0 to 9")
    shape = (len(pixels), *SPEC.image_shape)
    return Images(np.ascontiguousarray(pixels).reshape(shape), np.array(labels, np.uint8))


def _check_names(config: DatasetConfig) -> None:
    path, _ = locate(config.root, META)
    names = unpickle(path).get("label_names")
    if names != list(SPEC.classes):
        raise InputError(f"{path}: 'label_names' are not {', '.join(SPEC.classes)}")


def unpickle(path: Path) -> dict[str, Any]:
    """The dict in a pickle of numbers, strings and NumPy arrays.

    Raises:
        InputError: the file is cut short, holds anything else, or asks for code to be run
    """
    try:
        with path.open("rb") as file:
            content = _PlainUnpickler(file, path).load()
    except InputError:
        raise
    except Exception as error:  # whatever a damaged stream of opcodes makes Python or NumPy raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path}: not a whole pickle ({reason})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a pickled {type(content).__name__}, expected a dict")
    return content


class _PlainUnpickler(pickle.Unpickler):
    """Reads pickles by a fixed list of the functions that they may name: those of NumPy arrays."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")  # the published ones are Python 2's
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """The function or type that a pickle names; InputError for any other."""
        # NumPy 2 renamed its inner modules; the published files have the old names.
        known = f"{module.replace('numpy.core', 'numpy._core')}.{name}"
        if known not in _ADMITTED:
            raise InputError(
                f"{self.path}: asks for {module}.{name}, expected numbers, strings and NumPy "
                "arrays alone; not a CIFAR-10 batch, do not trust it"
            )
        return _ADMITTED[known]


def _dtype(name: str, align: Any = False, copy: Any = False) -> np.dtype[Any]:
    """`numpy.dtype`, taking the flags that old pickles hold as 0 and 1."""
    return np.dtype(name, bool(align), bool(copy))


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into a pickle that Python 2 can read."""
    return text.encode("latin1")


_EMPTY: NDArray[np.uint8] = np.empty(0, np.uint8)
_ADMITTED: dict[str, Any] = {
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": _dtype,
    "numpy._core.multiarray._reconstruct": _EMPTY.__reduce__()[0],
    "numpy._core.numeric._frombuffer": _EMPTY.__reduce_ex__(5)[0],
    "_codecs.encode": _latin1,
}
