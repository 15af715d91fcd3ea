"""bnnrun: Binarized Neural Networks (Courbariaux et al., 2016), reproduced.

Importing the package imports neither torch nor CuPy.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from bnnrun.runtime import Classifier
    from bnnrun.runtime.onnx_file import OnnxClassifier

__version__ = "0.1.0"


def load(
    path: "str | Path",
    kernel: str = "xnor",
    first_layer: str = "auto",
    threads: int = 0,
    device: str = "cpu",
) -> "Classifier | OnnxClassifier":
    """A packed network, or an ONNX file, ready to run: `bnnrun.runtime.load`."""
    from bnnrun.runtime import load as load_packed

    return load_packed(path, kernel, first_layer, threads, device)
