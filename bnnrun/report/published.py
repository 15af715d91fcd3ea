"""Test errors that others published of networks of few bits, and what levels they mean by them."""

from dataclasses import dataclass

BREVITAS = "Brevitas"
DOREFA = "DoReFa-Net"
SOURCES = {
    BREVITAS: "Xilinx/brevitas, src/brevitas_examples/bnn_pynq/README.md; 1W1A of 1000 epochs, the "
    "others of 500; 2 bits are the levels -1, 0, 1, and images of MNIST have as many bits as "
    "activations",
    DOREFA: "tensorpack/tensorpack, examples/DoReFa-Net/svhn-digit-dorefa.py, of train and extra, "
    "gradients of 4 bits; activations have the levels 0 to 1 in thirds at 2 bits and 0, 1 at 1; "
    "the first and the last layer are real",
}


@dataclass(frozen=True)
class Published:
    """One network of others.

    Attributes:
        low, high: test error, %; two numbers where a range is published
    """

    by: str
    dataset: str
    network: str
    weight_bits: int
    activation_bits: int
    low: float
    high: float


def _accuracy(dataset: str, network: str, bits: tuple[int, int], pct: float) -> Published:
    error = round(100 - pct, 2)
    return Published(BREVITAS, dataset, network, *bits, error, error)


PUBLISHED = (
    _accuracy("mnist", "TFC", (1, 1), 93.17),
    _accuracy("mnist", "TFC", (1, 2), 94.79),
    _accuracy("mnist", "TFC", (2, 2), 96.60),
    _accuracy("mnist", "SFC", (1, 1), 97.81),
    _accuracy("mnist", "SFC", (1, 2), 98.31),
    _accuracy("mnist", "SFC", (2, 2), 98.66),
    _accuracy("mnist", "LFC", (1, 1), 98.88),
    _accuracy("mnist", "LFC", (1, 2), 98.99),
    _accuracy("cifar10", "CNV", (1, 1), 84.22),
    _accuracy("cifar10", "CNV", (1, 2), 87.80),
    _accuracy("cifar10", "CNV", (2, 2), 89.03),
    Published(DOREFA, "svhn", "ConvNet", 1, 1, 3.1, 3.2),
    Published(DOREFA, "svhn", "ConvNet", 1, 2, 3.0, 3.1),
)
