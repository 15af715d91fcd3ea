"""The packed file: a safetensors file of bits and thresholds; its metadata describe the network.

It contains no pickle and no code. The reader verifies the checksum, then the shapes and values of
all arrays against the description, before it builds a network.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from bnnrun.architecture import Layer
from bnnrun.data.dataset import ImageSpec
from bnnrun.errors import InputError
from bnnrun.files import user_path, write_bytes
from bnnrun.gemm.bits import clean_tail, pack, unpack_bits, words
from bnnrun.runtime.model import MAX_BITS, PackedLayer, PackedModel, borders

NAME = "model.safetensors"
FORMAT = "bnnrun-packed"
ONE_BIT, MORE_BITS = 1, 2  # versions: of networks of ±1, and of those with more bits somewhere
BIT_KEYS = ("weight_bits", "output_bits")  # of a layer, as version 2 describes it
LARGEST = 2**24  # of an integer of the description: pixels, inputs, outputs
MAX_ACCUMULATOR = 2**30  # of |s|: well within int32
Arrays = dict[str, NDArray[Any]]


def save(model: PackedModel, path: Path) -> None:
    """Write a packed network to `path`, atomically.

    Version 1 holds networks of one bit: weights and thresholds lack the first axis, and the
    description says nothing of bits. Version 2 holds the others.
    """
    arrays: Arrays = {}
    version = ONE_BIT if all(map(_is_one_bit, model.layers)) else MORE_BITS
    planes = slice(None) if version == MORE_BITS else 0
    for layer in model.layers:
        name = layer.shape.name
        arrays[f"{name}.weight"] = layer.weight[planes]
        if layer.shape.last:
            for part in ("mean", "scale", "shift"):
                arrays[f"{name}.{part}"] = getattr(layer, part)
        else:
            arrays[f"{name}.threshold"] = layer.threshold[planes]
            arrays[f"{name}.flip"] = pack(layer.flip)
    arrays = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    network = json.dumps(_describe(model, version), ensure_ascii=True, sort_keys=True)
    metadata = {
        "format": FORMAT,
        "version": str(version),
        "network": network,
        "sha256": _checksum(network, arrays),
    }
    write_bytes(path, _in_order(to_bytes(arrays, metadata)))


def _in_order(content: bytes) -> bytes:
    """The file content with a sorted header: safetensors writes metadata in any order."""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":"))
    padded = header.encode()
    padded += b" " * (-len(padded) % 8)
    return len(padded).to_bytes(8, "little") + padded + content[8 + length :]


def load(path: Path) -> PackedModel:
    """Read a packed network.

    Raises:
        InputError: the file is absent, no packed network, cut short, altered, of a newer version,
            or describes a network that its arrays do not fit
    """
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such file; `bnnrun pack run=FOLDER` makes one of a run")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path}: a safetensors file, but not a packed network of bnnrun")
            version = metadata.get("version", "")
            if version not in (str(ONE_BIT), str(MORE_BITS)):
                raise InputError(
                    f"{path}: packed format {version[:20]!r}, this version reads {ONE_BIT} and "
                    f"{MORE_BITS}: update bnnrun"
                )
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: not a packed network, or cut short or altered ({_first_line(error)})"
        ) from None
    network = metadata.get("network", "")
    if metadata.get("sha256") != _checksum(network, arrays):
        raise InputError(f"{path}: altered: its content does not have its checksum")
    try:
        return _build(json.loads(network), arrays, int(version))
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise InputError(f"{path}: its description and its arrays do not fit "
                         f"({_first_line(error)})") from None  # fmt: skip


class _MalformedError(ValueError):
    pass


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def _checksum(network: str, arrays: Arrays) -> str:
    digest = hashlib.sha256(network.encode())
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        digest.update(f"\n{key} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _is_one_bit(layer: PackedLayer) -> bool:
    return layer.shape.weight_bits == layer.shape.output_bits == 1


def _describe(model: PackedModel, version: int) -> dict[str, Any]:
    return {
        "image_shape": list(model.spec.image_shape),
        "classes": list(model.spec.classes),
        "levels": model.spec.max_pixel,
        "input": list(model.input),
        "layers": [
            {
                "name": layer.shape.name,
                "outputs": layer.shape.outputs,
                "kernel": layer.shape.kernel,
                "pool": layer.shape.pool,
                **{key: getattr(layer.shape, key) for key in BIT_KEYS if version != ONE_BIT},
            }
            for layer in model.layers
        ],
        "source": model.source,
    }


def _build(network: dict[str, Any], arrays: Arrays, version: int) -> PackedModel:
    """Build the network of a description; check each array against it."""
    spec = spec_of(network["image_shape"], network["classes"], network["levels"])
    affine = tuple(float(v) for v in network["input"])
    _require(len(affine) == 3 and all(map(math.isfinite, affine)), "input")
    source = source_of(network["source"])
    layers = []
    shapes = _shapes(network["layers"], spec, version)
    left = dict(arrays)
    if version == ONE_BIT:
        planes = {
            key for shape in shapes for key in (f"{shape.name}.weight", f"{shape.name}.threshold")
        }
        left |= {key: left[key][None] for key in planes & set(left)}
    for i, shape in enumerate(shapes):
        layers.append(
            _layer(shape, left, max_pixel=spec.max_pixel if i == 0 else 1, is_first=i == 0)
        )
    _require(not left, f"{len(left)} arrays that no layer has")
    return PackedModel(spec, tuple(layers), (affine[0], affine[1], affine[2]), source)


def spec_of(image_shape: Any, classes: Any, max_pixel: Any) -> ImageSpec:
    """The images and classes of a description; ValueError where it is malformed."""
    channels, height, width = (_integer(v, "image_shape") for v in image_shape)
    _require(isinstance(classes, list) and all(map(_is_text, classes)), "classes")
    _require(height * width * channels <= LARGEST, "image_shape: too large")
    return ImageSpec((channels, height, width), tuple(classes), _integer(max_pixel, "levels", 255))


def source_of(described: Any) -> dict[str, str]:
    """`PackedModel.source` of a description; ValueError where it is malformed."""
    _require(isinstance(described, dict) and all(map(_is_text, described.values())), "source")
    _require(described.get("seed", "0").isdecimal(), "source: seed")
    return dict(described)


def _shapes(described: Any, spec: ImageSpec, version: int) -> list[Layer]:
    """Shapes of the layers; the inputs of each are the outputs of the previous one."""
    _require(isinstance(described, list) and 2 <= len(described) <= 1000, "number of layers")
    channels, height, width = spec.image_shape
    shapes: list[Layer] = []
    for i, each in enumerate(described):
        last = i == len(described) - 1
        kernel, pool = each["kernel"], each["pool"]
        known = isinstance(kernel, int) and kernel in (0, 3) and isinstance(pool, bool)
        _require(known, f"layer {i + 1}: kernel or pool")
        outputs = _integer(each["outputs"], f"outputs of layer {i + 1}")
        is_conv = kernel == 3
        after_dense = bool(shapes) and not shapes[-1].is_conv
        _require(not (is_conv and (last or after_dense)), f"layer {i + 1}: a convolution there")
        _require(is_conv or not pool, f"layer {i + 1}: pooling")
        inputs = channels if is_conv else channels * height * width
        _require(inputs > 0, f"layer {i + 1}: no inputs")
        size = (height, width) if is_conv else (1, 1)
        bits = dict.fromkeys(BIT_KEYS, 1)
        if version == MORE_BITS:
            bits = {
                key: _integer(each[key], f"{key} of layer {i + 1}", MAX_BITS) for key in BIT_KEYS
            }
        _require(not last or bits["output_bits"] == 1, f"layer {i + 1}: bits of scores")
        input_bits = shapes[-1].output_bits if shapes else 1
        shapes.append(
            Layer(str(each["name"])[:100], inputs, outputs, kernel, size, pool, last,
                  input_bits=input_bits, **bits)
        )  # fmt: skip
        channels, (height, width) = outputs, shapes[-1].pooled
        _require(inputs * outputs <= 2**40, f"layer {i + 1}: too large")
    _require(len({shape.name for shape in shapes}) == len(shapes), "names of layers")
    _require(shapes[-1].outputs == len(spec.classes), "number of classes")
    return shapes


def _layer(shape: Layer, arrays: Arrays, *, max_pixel: int, is_first: bool) -> PackedLayer:
    name, n = shape.name, shape.outputs
    planes = 2 ** int(max_pixel).bit_length() - 1  # the largest value that bit planes can hold
    largest = shape.k * shape.unit
    _require(largest * planes <= MAX_ACCUMULATOR, f"{name}: sums past 32 bits")
    weight = _take(arrays, f"{name}.weight", (shape.weight_bits, n, words(shape.k)), np.uint32)
    _require(clean_tail(weight, shape.k), f"{name}.weight: bits past the end of a row")
    none = np.zeros(0)
    if shape.last:
        mean, scale, shift = (
            _take(arrays, f"{name}.{part}", (n,), np.float64) for part in ("mean", "scale", "shift")
        )
        _require(bool(np.isfinite([mean, scale, shift]).all()), f"{name}: scores not finite")
        no_threshold = np.zeros((0, 0, n), np.int32)
        return PackedLayer(shape, weight, no_threshold, np.zeros(n, bool), mean, scale, shift)
    n_classes = len(borders(*shape.size)[1]) if is_first and shape.is_conv else 1
    levels = 2**shape.output_bits - 1
    threshold = _take(arrays, f"{name}.threshold", (levels, n_classes, n), np.int32)
    # |s| <= largest · max_pixel, so a threshold one past that stands for all larger ones.
    bound = largest * max_pixel + 1
    _require(bool((np.abs(threshold.astype(np.int64)) <= bound).all()), f"{name}.threshold")
    bits = _take(arrays, f"{name}.flip", (words(n),), np.uint32)
    _require(clean_tail(bits[None], n), f"{name}.flip: bits past the end")
    flip = unpack_bits(bits, n).astype(bool)
    steps = np.diff(threshold.astype(np.int64), axis=0)
    _require(bool((np.where(flip, -steps, steps) >= 0).all()), f"{name}.threshold: not in order")
    return PackedLayer(shape, weight, threshold, flip, none, none, none)


def _take(
    arrays: Arrays, key: str, shape: tuple[int, ...], dtype: type[np.generic]
) -> NDArray[Any]:
    array = arrays.pop(key, None)
    if array is None:
        raise _MalformedError(f"no array {key}")
    if array.shape != shape or array.dtype != dtype:
        expected = np.dtype(dtype)
        raise _MalformedError(f"{key} is {array.dtype} {array.shape}, expected {expected} {shape}")
    return array


def _is_text(value: Any) -> bool:
    """Whether a value is a valid Unicode string; JSON can contain lone surrogates."""
    return isinstance(value, str) and value.encode("utf-8", "replace").decode() == value


def _integer(value: Any, name: str, largest: int = LARGEST) -> int:
    _require(
        isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= largest,
        f"{name}: expected an integer from 1 to {largest}",
    )
    return int(value)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise _MalformedError(what)


def find(model: str) -> Path:
    """The packed file that a setting names, or the one in the folder that it names."""
    if not model:
        raise InputError(f"model: not given; name a packed file, or a folder with {NAME} in it")
    try:
        path = user_path(model)
        return path / NAME if path.is_dir() else path
    except (RuntimeError, OSError) as error:  # no such user, a name too long
        raise InputError(f"{model[:100]}: no such file ({error})") from None


def sha256(path: Path) -> str:
    """SHA-256 of the whole file, as from `sha256sum`."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
