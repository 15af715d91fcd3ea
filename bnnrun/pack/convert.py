"""`bnnrun pack`: from a trained network to a packed one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bnnrun.architecture import ARCHS, Layer
from bnnrun.config import (
    ArchConfig,
    BinarizationConfig,
    Binarizer,
    NormConfig,
    PackConfig,
    Preprocessing,
    ShiftNormConfig,
)
from bnnrun.data.dataset import ImageSpec
from bnnrun.data.preprocess import Input
from bnnrun.errors import InputError, RunError
from bnnrun.files import user_path
from bnnrun.gemm.bits import pack as to_bits
from bnnrun.nn.layers import Block
from bnnrun.nn.network import Network
from bnnrun.nn.quantizers import levels
from bnnrun.nn.quantizers.levels import thresholds
from bnnrun.pack.fold import Affine, first_difference, fold
from bnnrun.runtime import file
from bnnrun.runtime.model import MAX_BITS, PackedLayer, PackedModel, borders
from bnnrun.settings import restore
from bnnrun.table import print_table
from bnnrun.train import checkpoint


def pack(packing: PackConfig) -> None:
    """Pack the network of a run, write it, and print its bytes beside those of float32."""
    if not packing.run:
        raise InputError("run: not given; name a run folder: `bnnrun pack run=outputs/train/RUN`")
    path = user_path(packing.run)
    if path.is_dir():
        path /= checkpoint.BEST
    out = user_path(packing.out) if packing.out else path.with_name(file.NAME)
    model = convert(path)
    file.save(model, out)
    model = file.load(out)
    print_table(*bytes_table(model), title=f"{out}: {out.stat().st_size:,} bytes")


def bytes_table(model: PackedModel) -> tuple[list[str], list[list[str]]]:
    """(columns, rows): per layer, bytes of the weights as bits and as float32, and other bytes."""
    columns = ["layer", "weights", "bytes, bits", "bytes, float32", "times", "other bytes"]
    rows, total = [], np.zeros(4, np.int64)
    for layer in model.layers:
        parts = (layer.threshold, layer.mean, layer.scale, layer.shift)
        other = sum(part.nbytes for part in parts) + (
            0 if layer.shape.last else layer.flip.size // 8
        )
        counts = np.array(
            [layer.shape.weights, layer.weight.nbytes, 4 * layer.shape.weights, other]
        )
        total += counts
        rows.append(_bytes_row(layer.shape.name, counts))
    return columns, [*rows, _bytes_row("sum", total)]


def _bytes_row(name: str, counts: NDArray[np.int64]) -> list[str]:
    weights, bits, real, other = (int(n) for n in counts)
    return [name, f"{weights:,}", f"{bits:,}", f"{real:,}", f"{real / bits:.1f}", f"{other:,}"]


def convert(path: Path) -> PackedModel:
    """The packed form of a network file; InputError where it has none that is exact."""
    network, saved = trained(path)
    try:
        return pack_network(network, provenance(saved))
    except InputError as error:
        raise InputError(f"{path}: cannot be packed: {error}") from None


def provenance(saved: dict[str, Any]) -> dict[str, str]:
    """The provenance of a run's network file, as text by key: `PackedModel.source`.

    For images of one's own it includes the number and MD5 sum of each part.
    """
    best, images = saved["row"], saved["images"]
    source = {
        "dataset": str(saved["config"]["dataset"]["name"]),
        "seed": str(saved["config"]["seed"]),
        "epoch": str(best["epoch"]),
        "valid_error_pct": f"{best['valid_error_pct']:.4f}",
        "test_error_pct": f"{best['test_error_pct']:.4f}",
    }
    counts = dict(zip(("train", "valid", "test"), images["train_valid_test"], strict=True))
    for part, md5 in images.get("part_md5", {}).items():
        source |= {f"{part}_images": str(counts[part]), f"{part}_md5": md5}
    return source


def pack_network(network: Network, source: dict[str, str]) -> PackedModel:
    """The packed form of a network; InputError where it has none that is exact."""
    for block in network.blocks:
        if not block.product.binary:
            raise InputError(f"{block.layer.name} has real weights (binarization.weights=none): "
                             "only ±1 weights become bits")  # fmt: skip
        if block.activations is Binarizer.none and not block.layer.last:
            raise InputError(f"{block.layer.name} has ReLU for Sign (binarization.activations="
                             "none): only ±1 activations become bits")  # fmt: skip
        for what, bits, why in (
            ("weights", block.layer.weight_bits, "a product would take {} popcounts a weight"),
            ("activations", block.layer.output_bits, "a channel would take {} thresholds"),
        ):
            if bits > MAX_BITS:
                many = bits if what == "weights" else 2**bits - 1
                raise InputError(
                    f"{block.layer.name} has {what} of {bits} bits: 1 to {MAX_BITS} bits are "
                    f"packed, {why.format(many)}"
                )
    if network.input.zca_matrix is not None:
        raise InputError("dataset.preprocessing=zca mixes all pixels by real numbers, so no sums "
                         "of 8-bit pixels give its sums; scale and standardize can be")  # fmt: skip
    p, q, d = (float(getattr(network.input, name)) for name in "pqd")
    layers: list[PackedLayer] = []
    previous: Layer | None = None
    for block in network.blocks:
        # s / (n_a n_w), and of pixels (p·s + q·ones) / (d n_w).
        input_scaling = (p, q, d) if previous is None else (1.0, 0.0, 1.0)
        scaling = (*input_scaling[:2], input_scaling[2] * block.layer.unit)
        layers.append(_pack_layer(block, previous, scaling, network.spec.max_pixel))
        previous = block.layer
    return PackedModel(network.spec, tuple(layers), (p, q, d), source)


def trained(path: Path) -> tuple[Network, dict[str, Any]]:
    """(network, saved): the network of a run's file, to evaluate, and the content of the file."""
    saved = checkpoint.load(path, "network")
    saved_config, images = saved["config"], saved["images"]
    spec = ImageSpec(tuple(images["image_shape"]), tuple(images["classes"]), images["levels"])
    arch: ArchConfig = restore(ARCHS[saved_config["arch"]["name"]], saved_config["arch"])
    norm: NormConfig = restore(_NORMS[saved_config["norm"]["name"]], saved_config["norm"])
    binarization = restore(BinarizationConfig, saved_config["binarization"])
    state = saved["network"]
    p, q, d = (float(state[f"input.{name}"]) for name in "pqd")
    mean, matrix = (state.get(f"input.{name}") for name in ("zca_mean", "zca_matrix"))
    scaling = Input(Preprocessing(saved_config["dataset"]["preprocessing"]), p, q, d)
    if matrix is not None:
        scaling = replace(scaling, zca_mean=mean.numpy(), zca_matrix=matrix.numpy())
    network = Network(arch, binarization, norm, spec, scaling)
    network.load_state_dict(state)
    return network, saved


_NORMS: dict[str, type[NormConfig]] = {"batch": NormConfig, "shift": ShiftNormConfig}


@torch.no_grad()
def _pack_layer(
    block: Block, previous: Layer | None, scaling: tuple[float, float, float], max_pixel: int
) -> PackedLayer:
    """A layer's weights in the order of the packed file, and its batch norm as thresholds."""
    layer = block.layer
    channels = layer.inputs if layer.is_conv else 1
    if previous is not None and previous.is_conv:
        channels = previous.outputs
    codes = levels(block.product.weight, layer.weight_bits).numpy().astype(np.int64)
    w = ((codes + 2**layer.weight_bits - 1) // 2).reshape(layer.outputs, channels, -1)
    rows = np.ascontiguousarray(w.transpose(0, 2, 1)).reshape(layer.outputs, -1)
    mean, scale, shift = block.norm.affine()
    if not np.isfinite([mean, scale, shift]).all():
        raise InputError(f"{layer.name}: its batch norm has numbers that are not finite")
    planes = np.stack([(rows >> i & 1).astype(bool) for i in range(layer.weight_bits)])
    weight, none = to_bits(planes), np.zeros(0)
    if layer.last:
        no_threshold = np.zeros((0, 0, layer.outputs), np.int32)
        plain = np.zeros(layer.outputs, bool)
        return PackedLayer(layer, weight, no_threshold, plain, mean, scale, shift)
    # The input offset q contributes only at taps inside the image.
    numbers = 2.0 * rows - (2**layer.weight_bits - 1)
    if layer.is_conv and previous is None:
        taps = borders(*layer.size)[1].reshape(-1, 9).astype(np.float64)
        ones = taps @ numbers.reshape(layer.outputs, 9, -1).sum(axis=2).T
    else:
        ones = numbers.sum(axis=1)[None]
    largest = layer.k * layer.unit * (max_pixel if previous is None else 1)
    at = thresholds(layer.output_bits, torch.float64).tolist()
    t = np.zeros((len(at), len(ones), layer.outputs), np.int32)
    flip = scale < 0
    for border_class, each in enumerate(ones):
        norm = Affine(mean, scale, shift, *scaling, each)
        for j, level in enumerate(at):
            folded, flip = fold(norm, largest, level)
            if (wrong := first_difference(norm, folded, flip, largest, level)) is not None:
                raise RunError(
                    f"{layer.name}: channel {wrong[0]} is no threshold at the sum {wrong[1]}"
                )
            t[j, border_class] = folded
    return PackedLayer(layer, weight, t, flip, none, none, none)
