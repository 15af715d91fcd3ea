"""What wgmma_on_cpu.h notices: products of warpgroups that the manual does not promise."""

import emulated
import numpy as np
import pytest
from test_kernels_emulated import check_product

# A product of 64 x 32 x 256 bits from shared memory that holds `in`, byte for byte.
PRODUCT = """
extern "C" __global__ void product(int* out, const uint4* in, unsigned long long a,
                                   unsigned long long w)
{
    extern __shared__ __align__(1024) uint4 quads[];
    for (int i = threadIdx.x; i < 1024; i += 128) copy_16_async(quads + i, in + i, true);
    commit_copies();
    wait_for_copies<0>();
    show_to_products();
    __syncthreads();
    const unsigned long long start = shared_address(quads) >> 4;
    int c[16] = {};
    begin_products();
    multiply_and_popc(c, a + start, w + start);
    commit_products();
    finish_products(c);
    for (int i = 0; i < 16; i++)
        out[(threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i / 2 % 2 * 8) * 32 + i / 4 * 8 +
            threadIdx.x % 4 * 2 + i % 2] = c[i];
}
"""
# Of each mode: its number, and of a row r and a chunk c of 16 bytes the place, in chunks from the
# start; as the figures of the PTX manual show it for K-major operands, strides chosen here.
LAYOUTS = {
    "none": (0, lambda r, c: r // 8 * 20 + r % 8 + c * 8, 8),
    "128 bytes": (1, lambda r, c: r // 8 * 64 + r % 8 * 8 + (c ^ r % 8), 1),
    "64 bytes": (2, lambda r, c: r // 8 * 32 + r % 8 * 4 + (c ^ r // 2 % 4), 1),
    "32 bytes": (3, lambda r, c: r // 8 * 16 + r % 8 * 2 + (c ^ r // 4 % 2), 1),
}


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_operands_are_read_as_their_descriptors_say(name, backwards):
    mode, place, leading = LAYOUTS[name]
    rng = np.random.default_rng(0)
    memory = rng.integers(0, 2**32, (1024, 4), dtype=np.uint32)
    rows = [[(first + place(r, c)) for c in range(2)] for first, count in ((0, 64), (512, 32))
            for r in range(count)]  # fmt: skip
    words = memory[np.array(rows)].reshape(96, 8)
    both = np.bitwise_count(words[:64, None] & words[64:]).sum(axis=2)
    stride = place(8, 0) - place(0, 0)
    describe = mode << 62 | stride << 32 | leading << 16
    out = np.full((64, 32), -1, np.int32)
    emulated.compiled(PRODUCT, "product")(
        (1,),
        (128,),
        (out, memory, np.uint64(describe), np.uint64(describe + 512)),
        16384,
        backwards,
    )
    np.testing.assert_array_equal(out, both)


# Each mistake in the text of the kernel, that a GPU might let pass once.
MISTAKES = {
    "another swizzle": ("(chunk ^ row % 8) * 4", "(chunk ^ row % 4) * 4"),
    "no swizzle": ("(chunk ^ row % 8) * 4", "chunk * 4"),
    "another mode": ("1ull << 62", "2ull << 62"),
    "another stride": ("1024ull / 16 << 32", "512ull / 16 << 32"),
    "a base offset": ("1ull << 62", "1ull << 62 | 1ull << 49"),
    "another part": ("x + 2 * part", "x + 2"),
    "a buffer off its 1024 bytes": ("stages + step % STAGES * STAGE;",
                                    "stages + 32 + step % STAGES * STAGE;"),
    "the other warpgroup's rows": ("stage + first * ROW", "stage + (64 - first) * ROW"),
    "copies not waited for": ("wait_for_copies<STAGES - 3>();", ""),
    "copies not shown": ("        show_to_products();\n", ""),
    "no barrier": ("        __syncthreads();\n", ""),
    "a buffer filled too early": ("STAGES - 2", "STAGES - 1"),
    "products not waited for": ("wait_for_products<1>();", ""),
    "sums not waited for": ("finish_products(count);", "wait_for_products<1>();"),
    "registers not fenced": ("begin_products();\n#pragma", "#pragma"),
    "columns changed about": ("2 * (lane % 4) + e;", "lane % 4 + 4 * e;"),
    "rows changed about": ("thread / 32 % 4 * 16 + lane / 4", "thread / 32 % 4 * 8 + lane / 4"),
}  # fmt: skip


def failure(text, shape, backwards):
    """What is wrong with a product by the kernel of this text; None: nothing."""

    def launch(grid, block, arguments, shared_bytes):
        kernel = emulated.compiled(text, "xnor_gemm_wgmma", OUT="INT32")
        kernel(grid, block, arguments, shared_bytes, backwards)

    try:
        check_product(launch, {"OUT": "INT32"}, shape, "xnor_gemm_wgmma")
    except AssertionError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(mistake, marks=pytest.mark.exhaustive if i % 3 else ())
        for i, mistake in enumerate(MISTAKES)
    ],
)
def test_a_mistake_in_the_kernel_shows(mistake):
    right, wrong = MISTAKES[mistake]
    text = (emulated.KERNELS / "xnor_gemm_wgmma.cu").read_text(encoding="utf-8")
    begin, body = text.split("#ifndef CUDA_ON_CPU")
    wrapped, body = body.split("#endif", 1)
    assert right in body
    text = f"{begin}#ifndef CUDA_ON_CPU{wrapped}#endif{body.replace(right, wrong)}"
    assert any(failure(text, (70, 130, 6000), backwards) for backwards in (False, True))
