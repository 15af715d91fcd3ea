/*
pack_bits -- the signs of a matrix as bits.

  X     (R, K) of IN, row-major; with -DTRANSPOSED (K, R): then each column becomes a row of bits
  out   (R, KW) uint32   bit j of word i is element 32*i + j of the row, KW a multiple of 4;
                         the bits from K up to 32*KW are written as 0
  ones  (R,) int32       the 1 bits of each row

  FLOAT32, INT32   1 where x >= 0: Sign(0) = +1, also of minus zero; a NaN is 0
  UINT8            1 where x is not 0: a mask has no sign

Reading X is the cost, so reads are what is arranged. Rows: a warp takes a row and reads 128
neighbouring elements at a time; the votes of 32 lanes on one element each are the 32 bits of a
word, in order. Transposed: a thread takes a column, so that a warp reads neighbours in each row,
and gathers the bits of 128 rows of X itself.

Launch:   rows        grid (ceil(R / 8)), block 256
          transposed  grid (ceil(R / 128), KW / 4), block 128; the caller sets `ones` to 0
          -DIN=FLOAT32|INT32|UINT8 [-DTRANSPOSED]
Wrapper:  bnnrun/gemm/cuda.py      Reference: bnnrun/gemm/bits.py
*/

#define FLOAT32 0
#define INT32 1
#define UINT8 2

typedef unsigned int word;

#if IN == FLOAT32
typedef float element;
#elif IN == INT32
typedef int element;
#else
typedef unsigned char element;
#endif

__device__ __forceinline__ bool is_one(element x)
{
#if IN == UINT8
    return x != 0;
#else
    return x >= 0;
#endif
}

#ifdef TRANSPOSED

extern "C" __global__ void __launch_bounds__(128)
pack_bits(const element* __restrict__ x, word* __restrict__ out, int* __restrict__ ones, int r,
          int k, int kw)
{
    const int column = blockIdx.x * 128 + threadIdx.x, quad = blockIdx.y;
    if (column >= r) return;
    word bits[4] = {};
    for (int i = 0; i < 4; i++) {
        const int first = 32 * (4 * quad + i);
#pragma unroll 8
        for (int j = 0; j < 32; j++)
            if (first + j < k)
                bits[i] |= (word)is_one(x[(long long)(first + j) * r + column]) << j;
    }
    *reinterpret_cast<uint4*>(out + (long long)column * kw + 4 * quad) =
        make_uint4(bits[0], bits[1], bits[2], bits[3]);
    const int count = __popc(bits[0]) + __popc(bits[1]) + __popc(bits[2]) + __popc(bits[3]);
    if (count) atomicAdd(ones + column, count);
}

#else

extern "C" __global__ void __launch_bounds__(256)
pack_bits(const element* __restrict__ x, word* __restrict__ out, int* __restrict__ ones, int r,
          int k, int kw)
{
    const int lane = threadIdx.x % 32, row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= r) return;
    const element* of_row = x + (long long)row * k;
    int count = 0;
    for (int quad = 0; quad < kw / 4; quad++) {
        word bits[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int at = 32 * (4 * quad + i) + lane;
            bits[i] = __ballot_sync(0xffffffffu, at < k && is_one(of_row[at]));
            count += __popc(bits[i]);
        }
        if (lane == 0)
            *reinterpret_cast<uint4*>(out + (long long)row * kw + 4 * quad) =
                make_uint4(bits[0], bits[1], bits[2], bits[3]);
    }
    if (lane == 0) ones[row] = count;
}

#endif
