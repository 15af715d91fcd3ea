"""The bits of a network's weights and activations, as a record tells them."""

from dataclasses import dataclass
from typing import Any

from bnnrun.architecture import bits_text
from bnnrun.config import Binarizer
from bnnrun.table import Parts

FLOAT = 32
OPERANDS = ("weight", "activation")


@dataclass(frozen=True)
class Bits:
    """Bits of weights and activations: of each layer where they differ, else one number."""

    weights: tuple[int, ...]
    activations: tuple[int, ...]

    def __str__(self) -> str:
        return " x ".join(map(bits_text, (self.weights, self.activations)))

    @property
    def all(self) -> tuple[int, ...]:
        return (*self.weights, *self.activations)

    @property
    def is_uniform(self) -> bool:
        """Whether all layers have as many bits, of weights and of activations."""
        return len(self.all) == len(OPERANDS)

    @property
    def value(self) -> Parts:
        """As text; for programs weights and activations."""
        return Parts(str(self), tuple(map(bits_text, (self.weights, self.activations))))

    @property
    def key(self) -> tuple[Any, ...]:
        """By which they are in order: rising on average, of weights first."""
        means = (sum(bits) / len(bits) for bits in (self.weights, self.activations))
        return (*means, self.weights, self.activations)


def bits_of(config: dict[str, Any]) -> Bits | None:
    """The bits that a record's network was trained with; None where signs were sampled, or the
    record does not tell.
    """
    settings = config.get("binarization", {})
    bits_by_operand = []
    for operand in OPERANDS:
        binarizer, bits = settings.get(f"{operand}s"), settings.get(f"{operand}_bits", 1)
        if binarizer not in (Binarizer.sign.value, Binarizer.none.value):
            return None
        each = tuple(bits) if isinstance(bits, list) else (bits,)
        real = binarizer == Binarizer.none.value
        bits_by_operand.append((FLOAT,) if real else each[:1] if len(set(each)) == 1 else each)
    return Bits(*bits_by_operand)
