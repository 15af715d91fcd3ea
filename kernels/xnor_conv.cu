/*
xnor_conv -- 3x3 convolutions of ±1 held as bits, stride 1, zeros around the image, to bits.

  A     (B, H, S, CW) uint32   images, S pixels wide, channel bits innermost; CW a multiple of 4,
                               known when compiled, as a division by it is in the inner loop
  W     (N, 9 * CW) uint32     the nine taps row by row, the channels of each as in A
  limit (classes, N) int32     bit n of a pixel: d <= limit[class[pixel], n]
  class (H * S,) int32         which border a pixel stands at
  flip  (OW,) uint32           with -DPOOL: columns whose largest sum is the smallest here, because
                               their weights were negated
  out   (B, H', S', OW) uint32 in the layout of A, OW a multiple of 4, words past N written as 0;
                               H' = H and S' = S, or with -DPOOL H / 2 and S / 2, rounded down
  ones  (B,) int32             the 1 bits of each image are added to it; may be null

Numbers of more bits, by -DINPUT_BITS, -DWEIGHT_BITS and -DOUTPUT_BITS, lie in bit planes, the
lowest first: A (B, INPUT_BITS, H, S, CW), W (WEIGHT_BITS, N, 9 * CW), out (B, OUTPUT_BITS, H', S',
OW), ones (B, OUTPUT_BITS). Then
    d = sum of 2^(i + j) * popc(a_i ^ w_j)
over the planes, one product of bits after the other, and limit is (classes, LEVELS, N) with
LEVELS = 2^OUTPUT_BITS - 1, none larger than the one before it. The code of an output is the number
of limits that d is within.

A padded pixel is neither +1 nor -1. Its words are read as 0 here, so that at the border d also
counts the 1 bits of the weights that lie on padding: a constant for each column and each of the
(at most nine) ways to stand at the border, which `limit` already holds. So the sums are exactly
those of zero padding.

It is the product of xnor_gemm.cu, with the same way to count, in tiles of 64 x 64; only that
the rows of A are never made: a row is a pixel of the output, and where its words lie follows
from the tap. With -DPOOL four rows one behind the other are a 2x2 window, which one thread holds: the
largest of four sums passes a threshold if any does, the smallest if all do.

Launch:   grid (ceil(OW / 2), ceil(R / 64)), block 256, -DCW=<int> [-DPOOL]
          [-DINPUT_BITS=<int>] [-DWEIGHT_BITS=<int>] [-DOUTPUT_BITS=<int>]
          with R = B * H * S, or 4 * B * H' * S' with -DPOOL
Wrapper:  bnnrun/gemm/cuda.py      Reference: bnnrun/runtime/reference.py
*/

#ifndef INPUT_BITS
#define INPUT_BITS 1
#endif
#ifndef WEIGHT_BITS
#define WEIGHT_BITS 1
#endif
#ifndef OUTPUT_BITS
#define OUTPUT_BITS 1
#endif
#define LEVELS ((1 << OUTPUT_BITS) - 1)

#define BM 64
#define BN 64
#define BK 16
#define THREADS 256
#define ROWS (BM + BN)         // of A, then of W, in one buffer
#define LINE (ROWS + 4)        // words of a line: 4 * LINE is 16 past a multiple of 32 banks
#define QUADS (BK / 4)         // groups of 16 bytes in a step of a row
#define LOADS (ROWS * QUADS / THREADS)

typedef unsigned int word;

__device__ __forceinline__ word carry_save(word& one, word a0, word w0, word a1, word w1)
{
    word t = one ^ a0 ^ w0;
    word s = t ^ a1 ^ w1;
    word carry = (t & ~s) | (~t & one);
    one = s;
    return carry;
}

#ifdef POOL
#define ROWS_OF_PIXEL 4
#else
#define ROWS_OF_PIXEL 1
#endif

// Rows of the product: pixels of the output, with -DPOOL four for each.
__device__ __forceinline__ int count_rows(int images, int height, int width)
{
#ifdef POOL
    return images * (height / 2) * (width / 2) * 4;
#else
    return images * height * width;
#endif
}

// The image of a row, and the pixel in its middle.
__device__ __forceinline__ int locate(int row, int height, int width, int& y, int& x)
{
#ifdef POOL
    const int across = width / 2, pixels = height / 2 * across;
    const int window = row / 4 % pixels;
    y = window / across * 2 + row % 4 / 2;
    x = window % across * 2 + row % 2;
    return row / 4 / pixels;
#else
    y = row / width % height;
    x = row % width;
    return row / (height * width);
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
xnor_conv(const word* __restrict__ a, const word* __restrict__ w, word* __restrict__ out,
          int* __restrict__ ones, const int* __restrict__ limit, const int* __restrict__ classes,
          const word* __restrict__ flip, int images, int height, int width, int n, int ow)
{
    __shared__ __align__(16) word tile[2][BK][LINE];

    const int thread = threadIdx.x;
    const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
    const int tx = thread % 16, ty = thread / 16;
    const int kw = 9 * CW, m = count_rows(images, height, width);

    // What this thread fetches: 16 bytes twice, always of one row of the tile; two threads share
    // the 32 bytes that memory gives at once. The wrapper sees to it that 32 bits hold offsets.
    const int fetched = thread / 2;
    int from = -1, middle_y = 0, middle_x = 0;
    if (fetched >= BM) {
        if (column0 + fetched - BM < n) from = (column0 + fetched - BM) * kw;
    } else if (row0 + fetched < m) {
        const int image = locate(row0 + fetched, height, width, middle_y, middle_x);
        from = ((image * INPUT_BITS * height + middle_y) * width + middle_x) * CW;
    }
    const int plane = fetched >= BM ? n * kw : height * width * CW;

    uint4 next[LOADS];
    auto fetch = [&](int step, int i_plane, int j_plane) {
        const int first = from + (fetched >= BM ? j_plane : i_plane) * plane;
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            const int quad = step * QUADS + 2 * i + thread % 2;
            next[i] = make_uint4(0, 0, 0, 0);
            if (from < 0 || 4 * quad >= kw) continue;
            if (fetched >= BM) {
                next[i] = *reinterpret_cast<const uint4*>(w + first + 4 * quad);
            } else {
                const int tap = quad / (CW / 4), down = tap / 3 - 1, right = tap % 3 - 1;
                if ((unsigned)(middle_y + down) >= (unsigned)height) continue;
                if ((unsigned)(middle_x + right) >= (unsigned)width) continue;
                const int there = first + (down * width + right) * CW + 4 * (quad % (CW / 4));
                next[i] = *reinterpret_cast<const uint4*>(a + there);
            }
        }
    };
    auto keep = [&](int buffer) {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            word* line = &tile[buffer][4 * (2 * i + thread % 2)][fetched];
            line[0 * LINE] = next[i].x;
            line[1 * LINE] = next[i].y;
            line[2 * LINE] = next[i].z;
            line[3 * LINE] = next[i].w;
        }
    };

    int d[4][4] = {};
    const int steps = (kw + BK - 1) / BK;
#pragma unroll 1
    for (int pair = 0; pair < INPUT_BITS * WEIGHT_BITS; pair++) {
        const int i_plane = pair / WEIGHT_BITS, j_plane = pair % WEIGHT_BITS;
        word one[4][4] = {};
        int count[4][4] = {};
        fetch(0, i_plane, j_plane);
        keep(0);
        __syncthreads();
        for (int step = 0; step < steps; step++) {
            if (step + 1 < steps) fetch(step + 1, i_plane, j_plane);
            const int buffer = step % 2;
#pragma unroll 2
            for (int i = 0; i < BK; i += 2) {
                word x[2][4], y[2][4];
#pragma unroll
                for (int p = 0; p < 2; p++) {
                    *reinterpret_cast<uint4*>(x[p]) =
                        *reinterpret_cast<uint4*>(&tile[buffer][i + p][4 * ty]);
                    *reinterpret_cast<uint4*>(y[p]) =
                        *reinterpret_cast<uint4*>(&tile[buffer][i + p][BM + 4 * tx]);
                }
#pragma unroll
                for (int r = 0; r < 4; r++)
#pragma unroll
                    for (int c = 0; c < 4; c++)
                        count[r][c] += __popc(carry_save(one[r][c], x[0][r], y[0][c], x[1][r], y[1][c]));
            }
            // The other buffer was last read before the barrier that ended the step before.
            if (step + 1 < steps) keep(1 - buffer);
            __syncthreads();
        }
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                d[r][c] += (2 * count[r][c] + __popc(one[r][c])) << (i_plane + j_plane);
    }

    // Of each result of this thread: the bits of its four columns in plane p are bits 4 * p on.
    word codes[4 / ROWS_OF_PIXEL] = {};
    const int at = column0 / 32 + tx / 8, pixels = m / images / ROWS_OF_PIXEL;
#pragma unroll 1
    for (int level = 1; level <= LEVELS; level++) {
        // Bit r of `passed[c]`: whether row r of this thread passes in column c.
        word passed[4] = {};
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const int row = row0 + 4 * ty + r;
            int y, x;
            locate(row < m ? row : 0, height, width, y, x);
            const int* limits =
                limit + ((long long)classes[y * width + x] * LEVELS + level - 1) * n;
#pragma unroll
            for (int c = 0; c < 4; c++) {
                const int column = column0 + 4 * tx + c;
                passed[c] |= (word)(column < n && d[r][c] <= limits[column < n ? column : 0]) << r;
            }
        }
#pragma unroll
        for (int r = 0; r < 4 / ROWS_OF_PIXEL; r++) {
            word bits = 0;
#pragma unroll
            for (int c = 0; c < 4; c++) {
#ifdef POOL
                const bool all = at < ow && (flip[at] >> (4 * tx + c) % 32 & 1);
                bits |= (word)(all ? passed[c] == 15 : passed[c] != 0) << c;
#else
                bits |= (passed[c] >> r & 1) << c;
#endif
            }
            // Who passes a level passes all before it, so that bit p of the number of levels
            // passed changes at each multiple of 2^p.
#pragma unroll
            for (int p = 0; p < OUTPUT_BITS; p++)
                if (level % (1 << p) == 0) codes[r] ^= bits << 4 * p;
        }
    }

#pragma unroll
    for (int r = 0; r < 4 / ROWS_OF_PIXEL; r++) {
        const int row = row0 + 4 * ty + r, pixel = row / ROWS_OF_PIXEL;
#pragma unroll
        for (int p = 0; p < OUTPUT_BITS; p++) {
            word bits = (codes[r] >> 4 * p & 15) << 4 * tx % 32;
            // Eight neighbouring threads hold four bits each of one word. All of a warp take part,
            // also those whose row is past the last.
            for (int lane = 1; lane < 8; lane *= 2)
                bits |= __shfl_xor_sync(0xffffffffu, bits, lane);
            if (tx % 8 == 0 && row < m && at < ow) {
                // That is (image * OUTPUT_BITS + p) * pixels + the pixel's place in its image.
                const long long place =
                    pixel + (long long)(pixel / pixels * (OUTPUT_BITS - 1) + p) * pixels;
                out[place * ow + at] = bits;
                if (ones && bits)
                    atomicAdd(ones + pixel / pixels * OUTPUT_BITS + p, __popc(bits));
            }
        }
    }
}
