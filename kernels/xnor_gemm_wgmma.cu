/*
xnor_gemm_wgmma -- C = A · Wᵀ for matrices of ±1 held as bits, by products of whole warpgroups.

  A, W, C, ones, limit, scale, shift, a_ones, w_ones, OUT    as of xnor_gemm_mma.cu

Compute capability 9.0 alone, compiled for sm_90a. Four warps together multiply 64 x 256 x 256 bits
that lie in shared memory, at twice the rate of xnor_gemm_mma's instruction, and meanwhile do
something else. Both count the bits that are 1 in both operands:
    x · w = K - 2*d,   d = popc(a ^ w) = popc(a) + popc(w) - 2 * popc(a & w).

A block of two such warpgroups makes 128 x 256 of C, each 64 rows of it. K goes in steps of 1024
bits through STAGES buffers: while a step is multiplied, the next two are on their way, and the one
before is given time to end. A row of a step is 128 bytes, eight chunks of 16; chunk c of row r lies
at c ^ (r % 8), which is the hardware's 128-byte swizzle where a buffer begins on 1024 bytes. Copies
write through another path than products read, hence the fence between them. What lies outside the
matrices is copied as zeros, which add nothing.

Some compilers get these products wrong, NVRTC 13.2 is known to: bnnrun/gemm/dispatch.py tries them
before they are used.

Launch:   grid (ceil(N / 256), or of BITS ceil(CW / 8), ceil(M / 128)), block 256, dynamic
          shared memory STAGES * 49152 bytes, -DOUT=INT32|INT16|FLOAT32|BITS [-DSTAGES=<int>]
Wrapper:  bnnrun/gemm/cuda.py      Reference: bnnrun/gemm/reference.py
*/

#define INT32 0
#define INT16 1
#define FLOAT32 2
#define BITS 3

#ifndef STAGES
#define STAGES 4 // at least 3
#endif

#define BM 128
#define BN 256
#define CHUNKS 8                       // of 16 bytes, in a row of a step
#define ROW (CHUNKS * 4)               // words
#define STAGE ((BM + BN) * ROW)        // words
#define THREADS 256
#define WARPGROUP 128                  // threads
#define WARPGROUP_ROWS 64
#define SUMS (BN / 2)                  // of a thread
#define WORDS (BN / 32)                // of a row of a tile, as bits

typedef unsigned int word;
typedef unsigned long long descriptor; // of rows in shared memory, PTX's matrix descriptor

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

// What this thread has written to shared memory is what products read.
__device__ __forceinline__ void show_to_products()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Products may add to registers that were written before.
__device__ __forceinline__ void begin_products()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void commit_products()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Returns when no more than the last PENDING groups of products are still being made.
template <int PENDING> __device__ __forceinline__ void wait_for_products()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(PENDING) : "memory");
}

#define R4(i) "+r"(c[i]), "+r"(c[i + 1]), "+r"(c[i + 2]), "+r"(c[i + 3])
#define R16(i) R4(i), R4(i + 4), R4(i + 8), R4(i + 12)
#define R64(i) R16(i), R16(i + 16), R16(i + 32), R16(i + 48)

// Returns when all products are made; their sums may be read, and not before.
__device__ __forceinline__ void finish_products(int (&c)[128])
{
    asm volatile("wgmma.wait_group.sync.aligned 0;" : R64(0), R64(64) :: "memory");
}

// c += popc(a & w) of 64 rows, 256 columns, 256 bits; begun, and made meanwhile.
__device__ __forceinline__ void multiply_and_popc(int (&c)[128], descriptor a, descriptor w)
{
    asm volatile("{\n.reg .pred add;\nsetp.eq.u32 add, 0, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n256k256.s32.b1.b1.and.popc {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
                 "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
                 "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
                 "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "
                 "%110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, "
                 "%123, %124, %125, %126, %127}, %128, %129, add;\n}\n"
                 : R64(0), R64(64) : "l"(a), "l"(w) : "memory");
}
#endif

// Word of shared memory where chunk `chunk` of row `row` of a stage begins.
__device__ __forceinline__ int place(int row, int chunk)
{
    return row * ROW + (chunk ^ row % 8) * 4;
}

// Of rows of 128 bytes, swizzled: their address; 1, which is not looked at; from one group of
// eight rows to the next 1024 bytes; the mode of this swizzle. In units of 16 bytes.
__device__ __forceinline__ descriptor describe(const word* rows)
{
    return (shared_address(rows) & 0x3ffff) >> 4 | 1ull << 16 | 1024ull / 16 << 32 | 1ull << 62;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
xnor_gemm_wgmma(const word* __restrict__ a, const word* __restrict__ w, void* __restrict__ out,
                int* __restrict__ ones, const int* __restrict__ limit,
                const float* __restrict__ scale, const float* __restrict__ shift,
                const int* __restrict__ a_ones, const int* __restrict__ w_ones,
                int m, int n, int k, int kw, int cw)
{
    extern __shared__ __align__(1024) word stages[];

    const int thread = threadIdx.x, lane = thread % 32;
    const int first = thread / WARPGROUP * WARPGROUP_ROWS;  // row of the warpgroup's in the tile
    const int row0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
    const int chunks = kw / 4, steps = (chunks + CHUNKS - 1) / CHUNKS;

    auto fetch = [&](int step) {
        word* stage = stages + step % STAGES * STAGE;
        const int chunk = thread % CHUNKS, at = step * CHUNKS + chunk;
#pragma unroll
        for (int i = 0; i < (BM + BN) * CHUNKS / THREADS; i++) {
            const int row = i * (THREADS / CHUNKS) + thread / CHUNKS;
            const bool of_a = i < BM / (THREADS / CHUNKS);
            const int from = of_a ? row0 + row : column0 + row - BM;
            const bool inside = from < (of_a ? m : n) && at < chunks;
            const word* rows = of_a ? a : w;
            copy_16_async(stage + place(row, chunk),
                          inside ? rows + (long long)from * kw + 4 * at : rows, inside);
        }
    };

    int count[SUMS] = {};
    for (int step = 0; step < STAGES - 2; step++) {
        if (step < steps) fetch(step);
        commit_copies();
    }
    for (int step = 0; step < steps; step++) {
        wait_for_copies<STAGES - 3>();
        show_to_products();
        __syncthreads();
        const word* stage = stages + step % STAGES * STAGE;
        const descriptor x = describe(stage + first * ROW), y = describe(stage + BM * ROW);
        begin_products();
#pragma unroll
        for (int part = 0; part < CHUNKS / 2; part++) // 256 bits are two chunks
            multiply_and_popc(count, x + 2 * part, y + 2 * part);
        commit_products();
        // Into the buffer of two steps ago: both warpgroups had ended it before the barrier.
        if (step + STAGES - 2 < steps) fetch(step + STAGES - 2);
        commit_copies();
        wait_for_products<1>();
    }
    finish_products(count);

    // Of each 16 x 8 tile a lane holds two columns of row lane / 4 and of the row 8 below it.
    const int top = row0 + first + thread / 32 % 4 * 16 + lane / 4;
    int of_row[2];
#pragma unroll
    for (int half = 0; half < 2; half++)
        of_row[half] = top + 8 * half < m ? a_ones[top + 8 * half] : 0;
#if OUT == BITS
    word bits[2][WORDS] = {};
#endif
#pragma unroll
    for (int i = 0; i < SUMS / 4; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int column = column0 + 8 * i + 2 * (lane % 4) + e;
            if (column >= n) continue;
            const int of_column = w_ones[column];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int d = of_row[half] + of_column - 2 * count[4 * i + 2 * half + e];
#if OUT == BITS
                bits[half][i / 4] |= (word)(d <= limit[column]) << (column % 32);
#else
                const int row = top + 8 * half;
                if (row >= m) continue;
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
        }
#if OUT == BITS
    // Four lanes hold eight bits each of every word of two rows; each lane writes four words.
    const int half = lane % 4 / 2, quad = lane % 2, row = top + 8 * half;
    word mine[4];
#pragma unroll
    for (int i = 0; i < WORDS; i++)
#pragma unroll
        for (int of = 0; of < 2; of++) {
            word all = bits[of][i];
            all |= __shfl_xor_sync(0xffffffffu, all, 1);
            all |= __shfl_xor_sync(0xffffffffu, all, 2);
            if (of == half && i / 4 == quad) mine[i % 4] = all;
        }
    const int at = column0 / 32 + 4 * quad;
    if (row < m && at < cw) {
        *reinterpret_cast<uint4*>(static_cast<word*>(out) + (long long)row * cw + at) =
            make_uint4(mine[0], mine[1], mine[2], mine[3]);
        const int set = __popc(mine[0]) + __popc(mine[1]) + __popc(mine[2]) + __popc(mine[3]);
        if (set) atomicAdd(ones + row, set);
    }
#endif
}
