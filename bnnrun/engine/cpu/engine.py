"""Alg. 1 on the processor. `describe` alone decides which algorithms compute a block."""

import copy

import torch

from bnnrun.config import Binarizer, EngineChoice
from bnnrun.engine.cpu import winograd
from bnnrun.engine.cpu.factors import HAS_BYTES
from bnnrun.engine.cpu.norm_act import ESTIMATORS, NormAct, PoolNormActivation, evaluate_norm_act
from bnnrun.engine.cpu.products import BinaryLinear, PackedLinear, PopcountConv, WinogradConv
from bnnrun.engine.cpu.sampling import dropout, levels_into, sample_into
from bnnrun.engine.cpu.state import BinaryState
from bnnrun.engine.cpu.update import FUSED
from bnnrun.engine.memory import empty_like, filters_innermost
from bnnrun.gemm.ahead import compile_ahead
from bnnrun.gemm.compiled import thread_count
from bnnrun.gemm.lut_gemm import HAS_LUT
from bnnrun.nn.engine import Algorithm, Description, Engine
from bnnrun.nn.layers import Block
from bnnrun.nn.network import Network
from bnnrun.nn.norm import BatchNorm, ShiftBatchNorm
from bnnrun.nn.optim import Adam, Rule
from bnnrun.nn.quantizers import identity
from bnnrun.nn.quantizers.levels import Unscaled
from bnnrun.nn.sampling import Use, layer_key

# Pairs of bit planes of a convolution up to which popcounts are faster than float32 products.
MOST_PLANES = 4


class CpuEngine(Engine):
    """Products of ±1 by popcount, convolutions by Winograd's filtering, fused elementwise kernels.

    Exact: the pre-activations of ±1, evaluation, and all that is sampled. Gradients differ from the
    reference's by rounding: g_W of a product of 16-bit integers by 1 / 65,024 of an output's
    largest gradient (kernels/update.py), all others as float32 summed in another order.

    Attributes:
        state: the state of each block with binary weights, by index
    """

    name = EngineChoice.fast

    def __init__(self, network: Network, optimizer: Rule | None = None, seed: int = 0) -> None:
        super().__init__(network, optimizer, seed)
        filters_innermost(network)
        self.state = {
            block.index: BinaryState(block.layer, block.product.weight)
            for block in network.blocks
            if block.product.binary
        }
        self.state_of_weight = {state.weight: state for state in self.state.values()}
        self.described = {block.index: self._describe(block) for block in network.blocks}
        self.workspace = winograd.Workspace()

    def compile(self, pixels: torch.Tensor, labels: torch.Tensor) -> None:
        def run() -> None:
            twin.step(pixels, labels)
            twin.evaluate(pixels)

        twin = CpuEngine(*copy.deepcopy((self.network, self.optimizer)), self.seed)
        compile_ahead(run, thread_count())

    def describe(self, block: Block) -> Description:
        return self.described[block.index]

    def _describe(self, block: Block) -> Description:
        s, g_a, g_w = self._algorithms(block)
        norm, relu = block.norm, block.activations is Binarizer.none
        odd = block.layer.pool and any(
            side % 2 for side in block.layer.size
        )  # a row outside every 2x2 window
        return Description(
            s,
            g_a,
            g_w,
            fused_norm=type(norm) in (BatchNorm, ShiftBatchNorm)
            and not block.layer.last
            and not odd
            and (relu or block.estimator in ESTIMATORS),
            fused_update=type(self.optimizer) in FUSED,
            deferred=block.product.binary and not block.layer.is_conv and self._defers(),
        )

    def _defers(self) -> bool:
        """Whether the update computes g_W of fully connected layers from its factors."""
        return type(self.optimizer) is Adam

    def _algorithms(self, block: Block) -> tuple[Algorithm, Algorithm, Algorithm]:
        """The algorithms of s, g_a and g_W."""
        layer, binary = block.layer, block.product.binary
        if not block.product.fits_float32:
            return (Algorithm.float64,) * 3
        if layer.is_conv:
            if not winograd.fits(layer.size, layer.inputs, layer.outputs):
                return (Algorithm.float32,) * 3
            few_planes = layer.input_bits * layer.weight_bits <= MOST_PLANES
            if binary and block.binary_input and block.dropout == 0 and few_planes:
                return Algorithm.popcount, Algorithm.winograd, Algorithm.winograd
            # Sums of integers stay exact.
            return (Algorithm.float32 if layer.unit != 1 else Algorithm.winograd,) * 3
        if not binary or not HAS_LUT or layer.unit != 1:
            return (Algorithm.float32,) * 3
        g_w = HAS_BYTES and block.binary_input and type(self.optimizer) is Adam
        return (
            Algorithm.popcount if block.binary_input else Algorithm.lut,
            Algorithm.lut,
            Algorithm.int16 if g_w else Algorithm.float32,
        )

    def compute(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.deferred = self._defers()
        try:
            return super().compute(pixels, labels)
        finally:
            self.deferred = False

    def dropout(self, block: Block, a: torch.Tensor) -> torch.Tensor:
        if block.dropout == 0:
            return a
        return dropout(a, block.dropout, layer_key(self.step_key, block.index, Use.dropout))

    def product(self, block: Block, a: torch.Tensor) -> torch.Tensor:
        algorithm, state, w = (
            self.describe(block).product,
            self.state.get(block.index),
            block.product.weight,
        )
        unit = block.layer.unit
        if algorithm is Algorithm.float64:
            return super().product(block, a)
        if algorithm is Algorithm.winograd:
            s: torch.Tensor = WinogradConv.apply(a, self.binarize(block), self.workspace)
        elif algorithm is Algorithm.float32:
            if state is None or block.layer.is_conv:
                return super().product(block, a)
            self.binarize(block)
            s = BinaryLinear.apply(a.flatten(1), w, state, self.deferred)
        else:
            assert state is not None
            state.pack(self._buffered(block))
            if block.layer.is_conv:
                s = PopcountConv.apply(a, w, state, self.workspace)
            else:
                scale = 1 / (1 - block.dropout) if block.binary_input else None
                s = PackedLinear.apply(a, w, state, scale, self.deferred)
        return s if unit == 1 else s / unit

    def binarize(self, block: Block) -> torch.Tensor:
        state = self.state.get(block.index)
        if state is None:
            return block.product.weight
        signs = self._buffered(block)
        if signs is None:
            signs = levels_into(state.weight.detach(), 1, state.empty_signs())
        w_b = identity.estimate(block.product.weight, signs)
        return w_b if state.n == 1 else Unscaled.apply(w_b, state.n)

    def _buffered(self, block: Block) -> torch.Tensor | None:
        """W^b in its buffer if it is sampled, or if a number has more bits than one; else None."""
        state = self.state[block.index]
        if block.product.stochastic:
            key = layer_key(self.step_key, block.index, Use.weights)
            return sample_into(state.weight.detach(), key, state.empty_signs())
        if block.layer.unit == 1:
            return None
        return levels_into(state.weight.detach(), block.layer.weight_bits, state.empty_signs())

    def norm_act(self, block: Block, s: torch.Tensor) -> torch.Tensor:
        if not self.describe(block).fused_norm:
            return super().norm_act(block, s)
        norm, options = block.norm, NormAct.of(block, self.step_key)
        fused = PoolNormActivation.apply(s, norm.gamma, norm.beta, options)
        a: torch.Tensor = fused[0]
        norm.track(*fused[1:])
        return a

    @torch.no_grad()
    def update(self) -> None:
        assert self.optimizer is not None
        fused = FUSED.get(type(self.optimizer))
        for w, state, group in self.optimizer.members():
            if fused is None or not fused(
                self.optimizer, w, state, group, self.state_of_weight.get(w)
            ):
                self.optimizer.update(w, state, group)

    def evaluate_product(self, block: Block, a: torch.Tensor) -> torch.Tensor:
        algorithm, state = self.describe(block).product, self.state.get(block.index)
        if block.index == 0:
            return super().evaluate_product(block, a)
        if state is None and algorithm is Algorithm.winograd:
            pair = a, block.product.weight.detach()
            return winograd.convolve(winograd.Real(*pair), self.workspace)
        if state is None or algorithm is not Algorithm.popcount or block.product.stochastic:
            return super().evaluate_product(block, a)
        packed = state.pack(self._buffered(block))
        state.mark_packed()
        if block.layer.is_conv:
            s = packed.popcount_product(a.contiguous(memory_format=torch.channels_last))
        else:
            s = packed.popcount_product(a.flatten(1).contiguous())
        unit = block.layer.unit
        return s if unit == 1 else s.double() / unit

    def evaluated_weights(self, block: Block) -> torch.Tensor:
        if not block.product.binary:
            return super().evaluated_weights(block)
        # Not the buffer of W^b: a backward pass may still read that.
        w = block.product.weight.detach()
        return levels_into(w, block.layer.weight_bits, empty_like(w))

    def evaluate_norm_act(self, block: Block, s: torch.Tensor) -> tuple[torch.Tensor, float]:
        relu = block.activations is Binarizer.none
        affine, layer = block.norm.affine(), block.layer
        return evaluate_norm_act(s, affine, layer.pool, relu, layer.output_bits)
