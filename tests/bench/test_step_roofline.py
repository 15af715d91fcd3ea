"""A training step's roofline, by hand: its operations and bytes at rates made up."""

import pytest
from command import configure

from bnnrun.bench import step_roofline
from bnnrun.bench.measure import Timing
from bnnrun.bench.roofline import ADDERS, COPIED, COPY
from bnnrun.config import EngineChoice
from bnnrun.data import load
from bnnrun.engine.choose import make_engine
from bnnrun.engine.cpu.factors import HAS_BYTES
from bnnrun.gemm.lut_gemm import HAS_LUT
from bnnrun.nn.optim import make_optimizer
from bnnrun.train.trainer import make_network

pytestmark = pytest.mark.skipif(
    not (HAS_LUT and HAS_BYTES), reason="here the engine computes without tables and bytes"
)

BATCH = 10
# Multiply-accumulates a second, each roofline's loop a second long; bytes a second.
MACS = {
    ADDERS: 8e9,
    step_roofline.LUT_SUMS: 4e9,
    step_roofline.BYTE_PRODUCTS: 2e9,
    step_roofline.FLOAT_PRODUCTS: 1e9,
    COPY: 0.0,
}


def roofline_of(*words, copied):
    config = configure("bench", "workload=train_step", "dataset=digits", *words)
    network = make_network(config, load(config.dataset))
    optimizer = make_optimizer(network, config.optimizer)
    engine = make_engine(EngineChoice.fast, network, optimizer)
    timings = dict.fromkeys(MACS, Timing((1.0,)))
    timings[COPY] = Timing((2 * COPIED / copied,))
    return step_roofline.roofline_s(engine, BATCH, timings, MACS)


# Memory slower than any product of the update, then faster.
@pytest.mark.parametrize(("copied", "by_memory"), [(1e6, True), (1e15, False)])
def test_of_a_fully_connected_layer_the_longer_of_memory_and_products(copied, by_memory):
    found = roofline_of("arch.width=32", copied=copied)
    first, hidden, last = 64 * 32, 32 * 32, 32 * 10
    macs = (BATCH * first, BATCH * (2 * hidden + last))
    assert found["sums"] == pytest.approx(macs[0] / 4e9 + macs[1] / 8e9)
    assert found["gradients of products"] == pytest.approx(macs[1] / 4e9)
    # Two products of bytes for one of 16-bit numbers; the first layer's inputs are real.
    products = macs[0] / 1e9 + macs[1] / 1e9
    memory = 24 * (first + 2 * hidden + last) / copied
    assert found["update"] == pytest.approx(memory if by_memory else products)
    assert found["pooling, batch norm, Sign"] == 0


def test_a_convolution_takes_a_quarter_of_the_products_and_memory_for_its_update():
    found = roofline_of("arch=convnet", "arch.channels=[16,16]", "arch.fc=[]", copied=1e6)
    pixels, taps = 64, 9 * 16
    first, second = 9 * pixels * 16, taps * pixels * 16
    last = 16 * 16 * 10
    assert found["sums"] == pytest.approx(BATCH * (first / 1e9 + (second + last) / 8e9))
    of_g_a = second / 4e9 + last / 4e9
    of_g_w = first / 1e9 + second / 4e9
    assert found["gradients of products"] == pytest.approx(BATCH * (of_g_a + of_g_w))
    weights = 9 * 16 + taps * 16 + last
    assert found["update"] == pytest.approx(24 * weights / 1e6)


def test_without_binary_weights_a_fully_connected_gradient_is_no_part_of_the_update():
    roofline = roofline_of("arch.width=32", "binarization=none", copied=1e15)
    weights = 64 * 32 + 2 * 32 * 32 + 32 * 10
    macs = BATCH * (2 * weights - 64 * 32)  # g_W of each layer, g_a of all but the first
    assert roofline["gradients of products"] == pytest.approx(macs / 1e9)
    assert roofline["update"] == pytest.approx(24 * weights / 1e15)
