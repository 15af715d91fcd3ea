/*
xnor_gemm_mma -- C = A · Wᵀ for matrices of ±1 held as bits, by binary tensor cores.

  A, W, C, ones, limit, scale, shift, OUT    as of xnor_gemm.cu
  a_ones (M,) int32, w_ones (N,) int32       the 1 bits of each row of A and of W

Tensor cores of compute capability 8.0 to 9.0 count the bits that are 1 in both operands. With
x = 2a - 1 and w = 2b - 1 that is enough:
    x · w = K - 2*d,   d = popc(a ^ b) = popc(a) + popc(b) - 2 * popc(a & b).
The other form, `.xor.popc`, is not native from 9.0 on: the compiler puts a call in its place.

A block of eight warps makes 128 x 128 of C, a warp 64 x 32, in products of 16 x 8 x 256 bits.
K goes in steps of 1024 bits through STAGES buffers in shared memory: copies run ahead without
passing through registers, while a step is multiplied. A row of a step is 128 bytes, eight chunks
of 16; chunk c of row r lies at c ^ (r % 8), so that the eight rows that a fragment is read from
lie in different banks. What lies outside the matrices is copied as zeros, which add nothing.

Launch:   grid (ceil(N / 128), or of BITS ceil(CW / 4), ceil(M / 128)), block 256, dynamic
          shared memory STAGES * 32768 bytes, -DOUT=INT32|INT16|FLOAT32|BITS [-DSTAGES=<int>]
Wrapper:  bnnrun/gemm/cuda.py      Reference: bnnrun/gemm/reference.py
*/

#define INT32 0
#define INT16 1
#define FLOAT32 2
#define BITS 3

#ifndef STAGES
#define STAGES 3
#endif

#define BM 128
#define BN 128
#define CHUNKS 8                       // of 16 bytes, in a row of a step
#define STAGE ((BM + BN) * CHUNKS * 4) // words
#define THREADS 256
#define WARP_M 64
#define WARP_N 32
#define TILES_M (WARP_M / 16)
#define TILES_N (WARP_N / 8)

typedef unsigned int word;

#ifndef CUDA_ON_CPU
__device__ __forceinline__ unsigned shared_address(const void* p)
{
    return (unsigned)__cvta_generic_to_shared(p);
}

// 16 bytes of global memory to shared memory; zeros, and nothing read, if not `inside`.
__device__ __forceinline__ void copy_16_async(void* shared, const void* global, bool inside)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(shared_address(shared)), "l"(global), "r"(inside ? 16 : 0) : "memory");
}

__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Returns when no more than the last PENDING groups of copies are still on their way.
template <int PENDING> __device__ __forceinline__ void wait_for_copies()
{
    asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
}

// Four 8 x 16-byte matrices; lane l gives row l % 8 of matrix l / 8, and gets of each matrix
// the 32-bit word l % 4 of row l / 4.
__device__ __forceinline__ void load_matrices_x4(word (&r)[4], const void* row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row)) : "memory");
}

// c += popc(a & b) of 16 rows, 8 columns, 256 bits.
__device__ __forceinline__ void multiply_and_popc(int (&c)[4], const word (&a)[4], const word (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// Word of shared memory where chunk `chunk` of row `row` of a stage begins.
__device__ __forceinline__ int place(int row, int chunk)
{
    return (row * CHUNKS + (chunk ^ row % 8)) * 4;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
xnor_gemm_mma(const word* __restrict__ a, const word* __restrict__ w, void* __restrict__ out,
              int* __restrict__ ones, const int* __restrict__ limit,
              const float* __restrict__ scale, const float* __restrict__ shift,
              const int* __restrict__ a_ones, const int* __restrict__ w_ones,
              int m, int n, int k, int kw, int cw)
{
    extern __shared__ __align__(128) word stages[];

    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
    const int warp_row = warp / (BN / WARP_N) * WARP_M, warp_column = warp % (BN / WARP_N) * WARP_N;
    const int chunks = kw / 4, steps = (chunks + CHUNKS - 1) / CHUNKS;

    auto fetch = [&](int step) {
        word* stage = stages + step % STAGES * STAGE;
        const int chunk = thread % CHUNKS, at = step * CHUNKS + chunk;
#pragma unroll
        for (int i = 0; i < (BM + BN) * CHUNKS / THREADS; i++) {
            const int row = i * (THREADS / CHUNKS) + thread / CHUNKS;
            const bool of_a = row < BM;
            const int from = of_a ? row0 + row : column0 + row - BM;
            const bool inside = from < (of_a ? m : n) && at < chunks;
            const word* rows = of_a ? a : w;
            copy_16_async(stage + place(row, chunk),
                          inside ? rows + (long long)from * kw + 4 * at : rows, inside);
        }
    };

    int count[TILES_M][TILES_N][4] = {};
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) fetch(step);
        commit_copies();
    }
    for (int step = 0; step < steps; step++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        // Into the buffer that was multiplied in the step before: all are past it.
        if (step + STAGES - 1 < steps) fetch(step + STAGES - 1);
        commit_copies();
        const word* stage = stages + step % STAGES * STAGE;
#pragma unroll 2
        for (int chunk = 0; chunk < CHUNKS; chunk += 2) {
            word x[TILES_M][4], y[TILES_N][2];
#pragma unroll
            for (int i = 0; i < TILES_M; i++)
                load_matrices_x4(x[i], stage + place(warp_row + 16 * i + lane % 16, chunk + lane / 16));
#pragma unroll
            for (int j = 0; j < TILES_N; j += 2) {
                word pair[4];
                const int row = BM + warp_column + 8 * j + lane / 16 * 8 + lane % 8;
                load_matrices_x4(pair, stage + place(row, chunk + lane / 8 % 2));
                y[j][0] = pair[0];
                y[j][1] = pair[1];
                y[j + 1][0] = pair[2];
                y[j + 1][1] = pair[3];
            }
#pragma unroll
            for (int i = 0; i < TILES_M; i++)
#pragma unroll
                for (int j = 0; j < TILES_N; j++) multiply_and_popc(count[i][j], x[i], y[j]);
        }
    }

    // Lane l holds, of each 16 x 8 tile, two columns of row l / 4 and of row l / 4 + 8.
#pragma unroll
    for (int i = 0; i < TILES_M; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = row0 + warp_row + 16 * i + 8 * half + lane / 4;
            const int of_row = row < m ? a_ones[row] : 0;
#if OUT == BITS
            word bits = 0;
#endif
#pragma unroll
            for (int j = 0; j < TILES_N; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int bit = 8 * j + 2 * (lane % 4) + e;
                    const int column = column0 + warp_column + bit;
                    if (row >= m || column >= n) continue;
                    const int d = of_row + w_ones[column] - 2 * count[i][j][2 * half + e];
#if OUT == BITS
                    bits |= (word)(d <= limit[column]) << bit;
#else
                    const long long at = (long long)row * n + column;
                    const int sum = k - 2 * d;
#if OUT == INT32
                    static_cast<int*>(out)[at] = sum;
#elif OUT == INT16
                    static_cast<short*>(out)[at] = (short)sum;
#else
                    static_cast<float*>(out)[at] = fmaf((float)sum, scale[column], shift[column]);
#endif
#endif
                }
#if OUT == BITS
            // A warp's 32 columns are one word; four lanes hold eight bits each.
            bits |= __shfl_xor_sync(0xffffffffu, bits, 1);
            bits |= __shfl_xor_sync(0xffffffffu, bits, 2);
            const int at = (column0 + warp_column) / 32;
            if (lane % 4 == 0 && row < m && at < cw) {
                static_cast<word*>(out)[(long long)row * cw + at] = bits;
                if (bits) atomicAdd(ones + row, __popc(bits));
            }
#endif
        }
}
