"""What cuda_on_cpu.h itself notices: missing barriers, wrong addresses, sums."""

import emulated
import numpy as np
import pytest

CASES = """
enum { BARRIER, NO_BARRIER, RETURN, TWO_BARRIERS, WARP_WITHOUT_LANE, WAIT, NO_WAIT, TOO_FAR,
       DYNAMIC_TOO_FAR, LOCAL_TOO_FAR, SHUFFLE, VOTE, MATRIX, RETURNED_LANE,
       ARITHMETIC };

extern "C" __global__ void cases(unsigned* out, const uint4* in, int step)
{
    __shared__ unsigned words[64];
    extern __shared__ __align__(16) uint4 quads[];
    const int t = threadIdx.x;

    if (step == BARRIER || step == NO_BARRIER) {
        words[t] = t;
        if (step == BARRIER) __syncthreads();
        out[t] = words[63 - t];
    }
    if (step == RETURN && t >= 40) return;
    if (step == RETURN) {
        __syncthreads();
        out[t] = t;
    }
    if (step == TWO_BARRIERS) {
        if (t < 40)
            __syncthreads();
        else
            __syncthreads();
    }
    if (step == WARP_WITHOUT_LANE) {
        if (t == 3) __syncthreads();
        __syncwarp();
    }
    if (step == WAIT || step == NO_WAIT) {
        copy_16_async(quads + t, in + t, t % 2);
        commit_copies();
        copy_16_async(quads + 64 + t, in + t, true);
        commit_copies();
        if (step == WAIT) wait_for_copies<1>();
        out[t] = quads[t].y;
        out[64 + t] = quads[64 + t].y;
    }
    if (step == TOO_FAR) out[2 * t + 3] = 0;
    if (step == DYNAMIC_TOO_FAR) quads[2 * t + 3].w = 0;
    if (step == LOCAL_TOO_FAR) {
        unsigned local[4], *p = local;
        __syncthreads();
        p[t] = t;
        out[t] = local[t % 4];
    }
    if (step == SHUFFLE) {
        out[t] = __shfl_sync(0xffffffffu, t, 5, 8);
        out[t] = out[t] * 64 + __shfl_up_sync(0xffffffffu, t, 1u, 16);
        out[t] = out[t] * 64 + __shfl_down_sync(0xffffffffu, t, 3u);
        out[t] = out[t] * 64 + __shfl_xor_sync(0xffffffffu, t, 9);
    }
    if (step == VOTE && t % 2) {
        out[t] = __ballot_sync(0xaaaaaaaau, t > 8);
        out[64 + t] = __all_sync(0xaaaaaaaau, t < 40) * 2 + __any_sync(0xaaaaaaaau, t < 40);
    }
    if (step == MATRIX) {
        quads[t] = in[t];
        __syncthreads();
        unsigned r[4], pair[2];
        load_matrices_x4(r, quads + (t + 1) % 32);
        load_matrices_x2(pair, quads + t % 16);
        out[t] = r[0] + 10 * r[1] + 100 * r[2] + 1000 * r[3];
        out[64 + t] = pair[0] + 10 * pair[1];
    }
    if (step == ARITHMETIC && t == 0) {
        const unsigned x = 0x80402019u, y = 0xfedcba98u;
        out[0] = __brev(x);
        out[1] = __funnelshift_l(x, y, 36);
        out[2] = __funnelshift_r(x, y, 8);
        out[3] = __byte_perm(x, y, 0x7043);
        out[4] = __dp4a(int(x), int(y), 5);
        out[5] = __dp4a(x, y, 5u);
        out[6] = multiply_bytes(x, y, 5);
        out[7] = __clz(0) * 100 + __clz(255);
        out[8] = __ffs(0) * 100 + __ffs(40);
        out[9] = __float2int_rn(2.5f) * 100 + __float2int_rn(-3.5f);
        out[10] = __popcll(0x8000000000000003ull);
    }
    if (step == RETURNED_LANE) {
        if (t == 7) return;
        unsigned r[4];
        load_matrices_x4(r, quads);
    }
}
"""
STEPS = CASES[CASES.index("{") + 1 : CASES.index("}")].replace(",", " ").split()
POISON = 0xA5A5A5A5
THREAD = np.arange(64)


def case(step, *, checked=False, backwards=False, shared_bytes=2048):
    """What a step of `cases` leaves in 128 words that were 77, from a block of 64 threads."""
    out = np.full(128, 77, np.uint32)
    quads = np.arange(256, dtype=np.uint32)  # 64 times four words
    kernel = emulated.compiled(CASES, "cases", checked=checked)
    arguments = (out, quads, np.int32(STEPS.index(step)))
    kernel((1,), (64,), arguments, shared_bytes, backwards)
    return out


@pytest.mark.parametrize("backwards", [False, True])
def test_a_missing_barrier_shows(backwards):
    found = case("NO_BARRIER", backwards=backwards)[:64]
    assert case("BARRIER", backwards=backwards)[:64].tolist() == (63 - THREAD).tolist()
    assert (found == POISON).sum() == 32


def test_threads_that_have_returned_are_not_waited_for():
    expected = np.where(THREAD < 40, THREAD, 77)
    assert case("RETURN")[:64].tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("TWO_BARRIERS", r"^thread 0 waits at __syncthreads \(line \d+\)\n"
         r"thread 40 waits at __syncthreads \(line \d+\)\ncases, block \(0, 0, 0\): deadlock"),
        ("WARP_WITHOUT_LANE", r"^thread 0 waits at __syncwarp \(line \d+\)\n"
         r"thread 3 waits at __syncthreads \(line \d+\)\nthread 4 waits at __syncwarp"),
        ("TOO_FAR", "wrote outside argument 0, at byte 516 of 512"),
        ("DYNAMIC_TOO_FAR", "wrote 28 bytes past the dynamic shared memory"),
        ("RETURNED_LANE", r"load_matrices_x4 \(line \d+\) without lane 7, which has returned"),
    ],
)  # fmt: skip
def test_a_wrong_kernel_is_stopped_and_told_why(step, message):
    with pytest.raises(emulated.EmulationError, match=message):
        case(step)


def test_a_copy_is_there_when_its_group_was_waited_for():
    y = 4 * THREAD + 1
    waited = case("WAIT")
    assert waited[:64].tolist() == np.where(THREAD % 2, y, 0).tolist()
    assert (waited[64:] == POISON).all()
    assert (case("NO_WAIT") == POISON).all()


def test_lanes_exchange_as_the_manual_says():
    first = THREAD // 32 * 32
    expected = THREAD // 8 * 8 + 5
    expected = expected * 64 + np.where(THREAD % 16, THREAD - 1, THREAD)
    expected = expected * 64 + np.where(THREAD % 32 < 29, THREAD + 3, THREAD)
    expected = expected * 64 + (first + (THREAD % 32 ^ 9))
    assert case("SHUFFLE")[:64].tolist() == expected.tolist()

    odd = THREAD % 2 == 1
    votes = np.where(THREAD < 32, 0xAAAAAA00, 0xAAAAAAAA)
    found = case("VOTE")
    assert found[:64].tolist() == np.where(odd, votes, 77).tolist()
    assert found[64:].tolist() == np.where(odd, np.where(THREAD < 32, 3, 1), 77).tolist()


def test_arithmetic_is_that_of_the_manual():
    x, y = [25, 32, 64, 128], [152, 186, 220, 254]  # bytes of 0x80402019, 0xfedcba98
    signed_x, signed_y = ([byte - 256 * (byte > 127) for byte in of] for of in (x, y))
    sums = [5 + int(np.dot(*of)) for of in ((signed_x, signed_y), (x, y), (x, signed_y))]
    bits_moved = [0x98040201, 0xEDCBA988, 0x98804020, 0xFE199880]
    expected = [*bits_moved, *sums, 3224, 4, 196, 3]
    assert case("ARITHMETIC")[:11].tolist() == [value % 2**32 for value in expected]


def test_matrices_are_dealt_to_lanes_as_the_manual_says():
    lane = THREAD % 32
    rows = [(8 * i + lane // 4 + 1) % 32 for i in range(4)]  # a quad a row, its words 4*row + ...
    words = [4 * row + lane % 4 for row in rows]
    pair = [4 * (8 * i + lane // 4) + lane % 4 for i in range(2)]
    found = case("MATRIX")
    assert found[:64].tolist() == sum(10**i * word for i, word in enumerate(words)).tolist()
    assert found[64:].tolist() == (pair[0] + 10 * pair[1]).tolist()


def test_sanitizers_see_what_a_kernel_touches():
    for step in ("BARRIER", "WAIT", "SHUFFLE", "MATRIX"):
        np.testing.assert_array_equal(case(step, checked=True), case(step))
    for step, what in (
        ("TOO_FAR", "use-after-poison"),
        ("DYNAMIC_TOO_FAR", "use-after-poison"),
        ("LOCAL_TOO_FAR", "stack-buffer-overflow"),
    ):
        with pytest.raises(emulated.EmulationError, match=f"AddressSanitizer: {what}"):
            case(step, checked=True)
