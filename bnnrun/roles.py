"""What is timed, and what for: each competitor's role, which one it is, and its name in tables.

Records, benchmarks and reports choose by these; a name is made for readers, here, and never read.
"""

from dataclasses import dataclass
from enum import Enum
from functools import cached_property


class Role(Enum):
    """What a timing stands for beside the others of its run."""

    ours = "ours"  # what this package computes with
    baseline = "baseline"  # the unoptimized float32 product, the paper's yardstick
    float32 = "float32"  # other libraries in float32
    low_precision = "low_precision"  # other libraries in fewer bits
    peer = "peer"  # another library, or the definition, that computes the same answer
    roofline = "roofline"  # operations or memory alone: what no product can exceed


class Form(Enum):
    """What of the work a timing covers, where a method is timed in several ways."""

    bits_out = "bits_out"
    bits_out_cold = "bits_out_cold"  # operands not in the second-level cache
    int32_out = "int32_out"
    float32_out = "float32_out"
    packing = "packing"  # of A, on the clock: float32 in, int32 out
    bytes = "bytes"  # first layer by products with 8-bit pixels
    planes = "planes"  # first layer by eight planes of bits
    rounded = "rounded"  # accumulators are rounded to the precision of the operands
    float32_first = "float32_first"  # first layer in float32
    node = "node"  # the central operation alone, by the library's own profile
    memory_kept = "memory_kept"  # with the C library's settings that our training makes


_FORMS = {
    Form.bits_out: "bits out",
    Form.bits_out_cold: "bits out, cold",
    Form.int32_out: "int32 out",
    Form.float32_out: "float32 out",
    Form.packing: "float32 in, int32 out",
    Form.bytes: "first layer by bytes",
    Form.planes: "first layer by planes",
    Form.rounded: "sums rounded",
    Form.float32_first: "first layer float32",
    Form.node: "its node alone",
    Form.memory_kept: "memory kept",
}
# A method of ours that is not named here is a kernel, and its name is the kernel's.
_METHODS = {
    (Role.ours, "fast"): "bnnrun, fast",
    (Role.ours, "reference"): "bnnrun, reference",
    (Role.ours, "float32_fused"): "bnnrun, float32, fused",
    (Role.ours, "unnamed"): "bnnrun, before engines had names",
    (Role.ours, "pack_bits"): "pack_bits, float32 in",
    (Role.baseline, "unoptimized"): "baseline float32",
    (Role.float32, "torch"): "torch float32",
    (Role.float32, "numpy"): "NumPy float32",
    (Role.low_precision, "bf16"): "torch bf16",
    (Role.low_precision, "fp8"): "torch fp8",
    (Role.low_precision, "int8"): "torch int8",
    (Role.low_precision, "tf32"): "torch tf32",
    (Role.peer, "reference"): "reference",
    (Role.peer, "numkong"): "NumKong",
    (Role.peer, "openvino"): "OpenVINO",
    (Role.peer, "onnxruntime_float32"): "ONNX Runtime float32",
    (Role.peer, "onnxruntime_int8"): "ONNX Runtime int8",
    (Role.peer, "openvino_float32"): "OpenVINO float32",
    (Role.peer, "openvino_bf16"): "OpenVINO bf16",
    (Role.peer, "openvino_binary"): "OpenVINO binary",
    (Role.roofline, "xor_popcount_add"): "roofline: xor, popcount, add",
    (Role.roofline, "carry_save_popcount"): "roofline: carry-save adder, popcount, add",
    (Role.roofline, "vector_loads"): "roofline: loads of the tile",
    (Role.roofline, "carry_save_adders"): "roofline: carry-save adders",
    (Role.roofline, "memory_copy"): "roofline: copying memory",
    (Role.roofline, "lut_sums"): "roofline: tables of sums",
    (Role.roofline, "byte_products"): "roofline: products of bytes",
    (Role.roofline, "float32_product"): "roofline: float32 product",  # torch's, of older records
    (Role.roofline, "float32_multiply_add"): "roofline: float32 multiply-add",
}


@dataclass(frozen=True)
class Implementation:
    """One competitor of a benchmark.

    Attributes:
        variant: which one of its role: "torch", or method and form, "xnor/bits_out"
    """

    role: Role
    variant: str

    @classmethod
    def of(cls, role: Role, method: str, form: Form | None = None) -> "Implementation":
        return cls(role, method if form is None else f"{method}/{form.value}")

    @classmethod
    def parse(cls, key: str) -> "Implementation":
        """From its `key`; ValueError where the role or the form is unknown."""
        role, _, variant = key.partition(":")
        parsed = cls(Role(role), variant)
        _ = parsed.form
        return parsed

    @property
    def key(self) -> str:
        """'ours:xnor/bits_out': role and variant in one word, for keys in JSON."""
        return f"{self.role.value}:{self.variant}"

    @property
    def method(self) -> str:
        """The kernel, engine, library or precision, without the form."""
        return self.variant.partition("/")[0]

    @cached_property
    def form(self) -> Form | None:
        form = self.variant.partition("/")[2]
        return Form(form) if form else None

    @property
    def name(self) -> str:
        """As readers see it: 'xnor, bits out'."""
        method = _METHODS.get((self.role, self.method), self.method)
        return method if self.form is None else f"{method}, {_FORMS[self.form]}"

    @property
    def is_library(self) -> bool:
        """Whether it is another library's answer to the same question."""
        return self.role is Role.peer and self.method != "reference"

    @property
    def is_float32(self) -> bool:
        """Whether it is another library in float32."""
        return self.role is Role.float32 or (self.is_library and self.method.endswith("_float32"))

    @property
    def order(self) -> tuple[int, str]:
        """For sorting: ours, then others, then the roofline."""
        return {Role.ours: 0, Role.roofline: 2}.get(self.role, 1), self.name


YARDSTICK = Implementation(Role.float32, "torch")  # of every workload
PACK_BITS = Implementation(Role.ours, "pack_bits")  # signs as bits, apart from any product


def shown(implementation: Implementation, remark: str) -> str:
    """Its name, and after it what changes from run to run: 'baseline float32 (47 rows)'."""
    return f"{implementation.name} ({remark})" if remark else implementation.name
