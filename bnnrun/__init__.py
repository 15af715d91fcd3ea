"""bnnrun: Binarized Neural Networks (Courbariaux et al., 2016), reproduced.

Importing the package imports neither torch nor CuPy.
"""

__version__ = "0.1.0"


def load(path, kernel="xnor", first="auto", threads=0, device="cpu"):  # type: ignore[no-untyped-def]
    """A packed network, ready to run: `bnnrun.runtime.load`, imported when called."""
    from bnnrun.runtime import load as load_packed

    return load_packed(path, kernel, first, threads, device)
