/*
code_planes -- codes of a fully connected layer's outputs, from the products of its bit planes.

  S     (M, INPUT_BITS, WEIGHT_BITS, N) int32   s_ij = K - 2 * popc(a_i ^ w_j) of each plane i of a
                               row of A and each plane j of a row of W, the lowest first: what
                               xnor_gemm.cu makes of matrices whose rows are planes
  limit (LEVELS, N) int32      LEVELS = 2^OUTPUT_BITS - 1, none larger than the one before it
  out   (M, OUTPUT_BITS, CW) uint32   bit n of plane p of a row: bit p of the number of limits that
            d = sum of 2^(i + j) * popc(a_i ^ w_j) = (base - sum of 2^(i + j) * s_ij) / 2
                               is within; CW a multiple of 4, words past N written as 0
  ones  (M, OUTPUT_BITS) int32 the 1 bits of each plane are added to it: the caller sets it to 0
  base                         K * (2^INPUT_BITS - 1) * (2^WEIGHT_BITS - 1)

A warp makes one word of each plane of a row: a lane takes a column, so that lanes read neighbours,
and the votes of the lanes on a bit of their codes are the word.

Launch:   grid (ceil(CW / 8), M), block 256,
          -DINPUT_BITS=<int> -DWEIGHT_BITS=<int> -DOUTPUT_BITS=<int>
Wrapper:  bnnrun/gemm/cuda.py      Reference: bnnrun/runtime/reference.py
*/

#define LEVELS ((1 << OUTPUT_BITS) - 1)

typedef unsigned int word;

extern "C" __global__ void __launch_bounds__(256)
code_planes(const int* __restrict__ s, const int* __restrict__ limit, word* __restrict__ out,
            int* __restrict__ ones, int n, int cw, int base)
{
    const int lane = threadIdx.x % 32, at = blockIdx.x * 8 + threadIdx.x / 32, row = blockIdx.y;
    if (at >= cw) return;
    const int column = 32 * at + lane;
    int code = 0;
    if (column < n) {
        const int* products = s + (long long)row * INPUT_BITS * WEIGHT_BITS * n + column;
        int sum = 0;
#pragma unroll
        for (int i = 0; i < INPUT_BITS; i++)
#pragma unroll
            for (int j = 0; j < WEIGHT_BITS; j++)
                sum += products[(long long)(i * WEIGHT_BITS + j) * n] * (1 << (i + j));
        const int d = (base - sum) / 2;
#pragma unroll
        for (int level = 0; level < LEVELS; level++)
            code += d <= limit[(long long)level * n + column];
    }
#pragma unroll
    for (int p = 0; p < OUTPUT_BITS; p++) {
        const word bits = __ballot_sync(0xffffffffu, code >> p & 1);
        if (lane == 0) {
            out[((long long)row * OUTPUT_BITS + p) * cw + at] = bits;
            if (bits) atomicAdd(ones + row * OUTPUT_BITS + p, __popc(bits));
        }
    }
}
