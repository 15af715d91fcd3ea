/*
first_layer -- the first layer, from pixels of 8 bits to bits (paper §1.6).

  X     (B, K) uint8           a fully connected layer's rows;  or with -DCHANNELS=C images
        (B, C, H, S) uint8     S pixels wide, for a 3x3 convolution with zeros around the image
  W     (N, KW) uint32         element j of a row is byte, or with -DPLANES bit, j: -w as signed
                               bytes, or w = 1 as bits. Of a convolution j = tap * C + channel
  limit (classes, N) int32     bit n of a row: d <= limit[class, n]
  class (H * S,) int32         of a convolution: which border a pixel stands at
  flip  (OW,) uint32           with -DPOOL, as of xnor_conv.cu
  ones  (B,) int32             the 1 bits of each image are added to it; may be null
  out   (B, OW) or (B, H', S', OW) uint32   as of xnor_gemm.cu, xnor_conv.cu

Two ways to the same comparison:
  bytes    d = sum of x * -w, four products an instruction (dp4a)
  planes   the paper's: x = sum of 2^p * x_p in bits, so that
           d = sum of 2^p * popc(x_p ^ w) = -x · w + 255 * (how many w are 1)
Weights of more bits are just other bytes, -15 to 15; in planes, with -DWEIGHT_BITS, W is
(WEIGHT_BITS, N, KW), the lowest plane first, and d = sum of 2^(p + j) * popc(x_p ^ w_j). Outputs of
more bits, with -DOUTPUT_BITS, are as of xnor_conv.cu: limit (classes, LEVELS, N), ones
(B, OUTPUT_BITS), out (B, OUTPUT_BITS, OW) or (B, OUTPUT_BITS, H', S', OW).

A tile of 64 rows is brought to shared memory 32 elements at a time, pixel by pixel, wherever
they lie; the planes way turns each 32 bytes into eight words of one bit each there.

Launch:   grid (ceil(OW / 2), ceil(R / 64)), block 256, [-DCHANNELS=<int> [-DPOOL]]
          [-DPLANES [-DWEIGHT_BITS=<int>]] [-DOUTPUT_BITS=<int>]
          with R = B, or B * H * S, or 4 * B * H' * S' with -DPOOL
Wrapper:  bnnrun/gemm/cuda.py      Reference: bnnrun/runtime/reference.py
*/

#ifndef WEIGHT_BITS
#define WEIGHT_BITS 1
#endif
#ifndef OUTPUT_BITS
#define OUTPUT_BITS 1
#endif
#define LEVELS ((1 << OUTPUT_BITS) - 1)

#define TILE 64
#define WORDS 8  // of a row in a step: 32 bytes, or eight planes of 32 bits
#define THREADS 256
#define LINE (TILE + 4)

typedef unsigned int word;

#ifdef PLANES
#define W_WORDS WEIGHT_BITS
#else
#define W_WORDS WORDS
#endif

#ifndef CUDA_ON_CPU
// d + the sum of four products, of unsigned bytes of x and signed bytes of w. The intrinsic
// multiplies two of a kind.
__device__ __forceinline__ int multiply_bytes(word x, word w, int d)
{
    int sum;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(x), "r"(w), "r"(d));
    return sum;
}
#endif

#ifdef POOL
#define ROWS_OF_PIXEL 4
#else
#define ROWS_OF_PIXEL 1
#endif

struct Shape {
    int images, height, width, k;
};

__device__ __forceinline__ int count_rows(const Shape& of)
{
#if !defined(CHANNELS)
    return of.images;
#elif defined(POOL)
    return of.images * (of.height / 2) * (of.width / 2) * 4;
#else
    return of.images * of.height * of.width;
#endif
}

// The image of a row, and the pixel in its middle.
__device__ __forceinline__ int locate(int row, const Shape& of, int& y, int& x)
{
#if !defined(CHANNELS)
    y = x = 0;
    return row;
#elif defined(POOL)
    const int across = of.width / 2, pixels = of.height / 2 * across;
    const int window = row / 4 % pixels;
    y = window / across * 2 + row % 4 / 2;
    x = window % across * 2 + row % 2;
    return row / 4 / pixels;
#else
    y = row / of.width % of.height;
    x = row % of.width;
    return row / (of.height * of.width);
#endif
}

// Element `at` of a row; 0 past its end and on padding.
__device__ __forceinline__ word element(const unsigned char* x, const Shape& of, int image,
                                        int middle_y, int middle_x, int at)
{
    if (image < 0 || at >= of.k) return 0;
#ifdef CHANNELS
    const int tap = at / CHANNELS, channel = at % CHANNELS;
    const int row = middle_y + tap / 3 - 1, column = middle_x + tap % 3 - 1;
    if (row < 0 || row >= of.height || column < 0 || column >= of.width) return 0;
    return x[(((long long)image * CHANNELS + channel) * of.height + row) * of.width + column];
#else
    return x[(long long)image * of.k + at];
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS)
first_layer(const unsigned char* __restrict__ x, const word* __restrict__ w,
            word* __restrict__ out, int* __restrict__ ones, const int* __restrict__ limit,
            const int* __restrict__ classes, const word* __restrict__ flip, int images, int height,
            int width, int k, int n, int kw, int ow)
{
    __shared__ __align__(16) word of_x[WORDS][LINE];
    __shared__ __align__(16) word of_w[W_WORDS][LINE];

    const Shape shape = {images, height, width, k};
    const int thread = threadIdx.x, tx = thread % 16, ty = thread / 16, m = count_rows(shape);
    const int row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;

    // Four threads bring one row of X, eight elements each.
    const int piece = thread % 4;
    int y = 0, z = 0;
    int image = locate(row0 + thread / 4, shape, y, z);
    if (row0 + thread / 4 >= m) image = -1;

    int d[4][4] = {};
    for (int step = 0; step < (k + 31) / 32; step++) {
        word bytes[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            bytes[i] = 0;
#pragma unroll
            for (int j = 0; j < 4; j++)
                bytes[i] |= element(x, shape, image, y, z, 32 * step + 8 * piece + 4 * i + j) << 8 * j;
        }
#ifdef PLANES
        // Plane p of these eight elements is bit p of each byte; four threads make the word.
#pragma unroll
        for (int p = 0; p < WORDS; p++) {
            word bits = 0;
#pragma unroll
            for (int j = 0; j < 8; j++) bits |= (bytes[j / 4] >> (8 * (j % 4) + p) & 1) << j;
            bits <<= 8 * piece;
            bits |= __shfl_xor_sync(0xffffffffu, bits, 1);
            bits |= __shfl_xor_sync(0xffffffffu, bits, 2);
            if (piece == 0) of_x[p][thread / 4] = bits;
        }
#else
        of_x[2 * piece][thread / 4] = bytes[0];
        of_x[2 * piece + 1][thread / 4] = bytes[1];
#endif
        for (int i = thread; i < W_WORDS * TILE; i += THREADS) {
            const int column = column0 + i / W_WORDS;
#ifdef PLANES
            const int row = i % W_WORDS * n + column, at = step;
#else
            const int row = column, at = step * W_WORDS + i % W_WORDS;
#endif
            of_w[i % W_WORDS][i / W_WORDS] =
                column < n && at < kw ? w[(long long)row * kw + at] : 0;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < WORDS; i++) {
            word a[4], b[4];
            *reinterpret_cast<uint4*>(a) = *reinterpret_cast<uint4*>(&of_x[i][4 * ty]);
#ifdef PLANES
#pragma unroll
            for (int j = 0; j < WEIGHT_BITS; j++) {
                *reinterpret_cast<uint4*>(b) = *reinterpret_cast<uint4*>(&of_w[j][4 * tx]);
#pragma unroll
                for (int r = 0; r < 4; r++)
#pragma unroll
                    for (int c = 0; c < 4; c++) d[r][c] += __popc(a[r] ^ b[c]) << (i + j);
            }
#else
            *reinterpret_cast<uint4*>(b) = *reinterpret_cast<uint4*>(&of_w[i][4 * tx]);
#pragma unroll
            for (int r = 0; r < 4; r++)
#pragma unroll
                // Four products of an unsigned and a signed byte.
                for (int c = 0; c < 4; c++) d[r][c] = multiply_bytes(a[r], b[c], d[r][c]);
#endif
        }
        __syncthreads();
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
            int of_class = 0;
#ifdef CHANNELS
            const int row = row0 + 4 * ty + r;
            int row_y, row_x;
            locate(row < m ? row : 0, shape, row_y, row_x);
            of_class = classes[row_y * width + row_x];
#endif
            const int* limits = limit + ((long long)of_class * LEVELS + level - 1) * n;
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
