/*
xnor_gemm -- C = A · Wᵀ for matrices of ±1 held as bits (paper §4), on any CUDA device.

  A  (M, KW) uint32   row-major; bit j of word i is element 32*i + j of the row,
  W  (N, KW) uint32   1 for +1 and 0 for -1; the bits from K up to 32*KW are 0
  KW                  a multiple of 4: a row begins on 16 bytes

Where two signs agree their product is +1, where they differ -1, hence
    c = (K - d) - d = K - 2*d,   d = popc(a ^ w).
Tail bits never differ, so K is the true length, not 32 * KW.

What is written, by OUT:
  INT32    C (M, N) int32     c
  INT16    C (M, N) int16     c; the wrapper refuses K > 32767
  FLOAT32  C (M, N) float32   c * scale[n] + shift[n], rounded once
  BITS     C (M, CW) uint32   bit n of a row: d <= limit[n], in the layout of A; CW a multiple
                              of 4, its words past N written as 0
           ones (M,) int32    the 1 bits of each row are added to it: the caller sets it to 0

Why it is fast. A block makes a BM x BN tile of C. It walks K in steps of BK words through shared
memory, two buffers in turn: while one is multiplied, the next words are on their way in registers.
A thread makes 8 x 4 of C, so that twelve words from shared memory serve 32 products. Counting
bits is the scarcest operation (16 a clock and multiprocessor, logic has 64), so two words are
joined by a carry-save adder before one is counted: with `one` the bits of weight 1 left over,
    t = one ^ a0 ^ w0,   s = t ^ a1 ^ w1,   carry = t ? ~s : one,   one = s
is three logic instructions and one count for two words, in place of two and two.
Edges are guarded, not padded: any M, N and K.

Launch:   grid (ceil(N / 64), or of BITS ceil(CW / 2), ceil(M / 128)), block 256,
          -DOUT=INT32|INT16|FLOAT32|BITS
Wrapper:  bnnrun/gemm/cuda.py      Reference: bnnrun/gemm/reference.py
*/

#define INT32 0
#define INT16 1
#define FLOAT32 2
#define BITS 3

#define BM 128
#define BN 64
#define BK 16
#define THREADS 256
#define ROWS (BM + BN)         // of A, then of W, in one buffer
#define LINE (ROWS + 4)        // words of a line: 4 * LINE is 16 past a multiple of 32 banks
#define QUADS (BK / 4)         // groups of 16 bytes in a step of a row
#define LOADS (ROWS * QUADS / THREADS)

typedef unsigned int word;

__device__ __forceinline__ uint4 load_quad(const word* rows, int row, int count, int quad, int kw)
{
    // Outside the matrix there are only bits that do not differ.
    if (row >= count || quad >= kw / 4) return make_uint4(0, 0, 0, 0);
    return *reinterpret_cast<const uint4*>(rows + (long long)row * kw + 4 * quad);
}

__device__ __forceinline__ word carry_save(word& one, word a0, word w0, word a1, word w1)
{
    word t = one ^ a0 ^ w0;
    word s = t ^ a1 ^ w1;
    word carry = (t & ~s) | (~t & one);
    one = s;
    return carry;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
xnor_gemm(const word* __restrict__ a, const word* __restrict__ w, void* __restrict__ out,
          int* __restrict__ ones, const int* __restrict__ limit, const float* __restrict__ scale,
          const float* __restrict__ shift, int m, int n, int k, int kw, int cw)
{
    __shared__ __align__(16) word tile[2][BK][LINE];

    const int thread = threadIdx.x;
    const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
    // Of a thread: four columns, and twice four rows half a tile apart, so that threads that read
    // at the same time read neighbouring 16 bytes.
    const int tx = thread % 16, ty = thread / 16;

    uint4 next[LOADS];
    word one[8][4];
    int count[8][4];
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            one[i][j] = 0;
            count[i][j] = 0;
        }

    // Thread t fetches 16 bytes of a row; two threads share the 32 bytes that memory gives at once.
    auto fetch = [&](int step) {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            int at = i * THREADS + thread;
            int quad = at % 2 + at / (2 * ROWS) * 2, row = at / 2 % ROWS;
            next[i] = row < BM ? load_quad(a, row0 + row, m, step * QUADS + quad, kw)
                               : load_quad(w, column0 + row - BM, n, step * QUADS + quad, kw);
        }
    };
    auto keep = [&](int buffer) {
#pragma unroll
        for (int i = 0; i < LOADS; i++) {
            int at = i * THREADS + thread;
            int quad = at % 2 + at / (2 * ROWS) * 2, row = at / 2 % ROWS;
            tile[buffer][4 * quad + 0][row] = next[i].x;
            tile[buffer][4 * quad + 1][row] = next[i].y;
            tile[buffer][4 * quad + 2][row] = next[i].z;
            tile[buffer][4 * quad + 3][row] = next[i].w;
        }
    };

    const int steps = (kw + BK - 1) / BK;
    fetch(0);
    keep(0);
    __syncthreads();
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) fetch(step + 1);
        const int buffer = step % 2;
#pragma unroll 1
        for (int i = 0; i < BK; i += 2) {
            word x[2][8], y[2][4];
#pragma unroll
            for (int p = 0; p < 2; p++) {
                *reinterpret_cast<uint4*>(&x[p][0]) =
                    *reinterpret_cast<uint4*>(&tile[buffer][i + p][4 * ty]);
                *reinterpret_cast<uint4*>(&x[p][4]) =
                    *reinterpret_cast<uint4*>(&tile[buffer][i + p][BM / 2 + 4 * ty]);
                *reinterpret_cast<uint4*>(&y[p][0]) =
                    *reinterpret_cast<uint4*>(&tile[buffer][i + p][BM + 4 * tx]);
            }
#pragma unroll
            for (int r = 0; r < 8; r++)
#pragma unroll
                for (int c = 0; c < 4; c++)
                    count[r][c] += __popc(carry_save(one[r][c], x[0][r], y[0][c], x[1][r], y[1][c]));
        }
        // The other buffer was last read before the barrier that ended the step before.
        if (step + 1 < steps) keep(1 - buffer);
        __syncthreads();
    }

#pragma unroll
    for (int r = 0; r < 8; r++) {
        const int row = row0 + r / 4 * (BM / 2) + 4 * ty + r % 4;
#if OUT == BITS
        word bits = 0;
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int column = column0 + 4 * tx + c;
            const int d = 2 * count[r][c] + __popc(one[r][c]);
            bits |= (word)(column < n && d <= limit[column]) << (4 * tx + c) % 32;
        }
        // Eight neighbouring threads hold four bits each of one word. All of a warp take part,
        // also those whose row is past the matrix.
        for (int lane = 1; lane < 8; lane *= 2) bits |= __shfl_xor_sync(0xffffffffu, bits, lane);
        const int at = column0 / 32 + tx / 8;
        if (tx % 8 == 0 && row < m && at < cw) {
            static_cast<word*>(out)[(long long)row * cw + at] = bits;
            if (bits) atomicAdd(ones + row, __popc(bits));
        }
#else
#pragma unroll
        for (int c = 0; c < 4; c++) {
            const int column = column0 + 4 * tx + c;
            if (row >= m || column >= n) continue;
            const long long at = (long long)row * n + column;
            const int sum = k - 2 * (2 * count[r][c] + __popc(one[r][c]));
#if OUT == INT32
            static_cast<int*>(out)[at] = sum;
#elif OUT == INT16
            static_cast<short*>(out)[at] = (short)sum;
#else
            static_cast<float*>(out)[at] = fmaf((float)sum, scale[column], shift[column]);
#endif
        }
#endif
    }
}
