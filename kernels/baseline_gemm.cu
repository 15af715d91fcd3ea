/*
baseline_gemm -- C = A · Wᵀ in float32, unoptimized: the paper's yardstick (§4, Figure 3).

  A (M, K), W (N, K), C (M, N)   float32, row-major

The product as a first course in CUDA teaches it: a thread makes one element of C, a block
16 x 16, operands go through shared memory once a block. No registers are tiled, nothing runs
ahead; this is what the XNOR kernels are compared with, so it is kept as it is. Edges are guarded.

Launch:   grid (ceil(N / 16), ceil(M / 16)), block (16, 16)
Wrapper:  bnnrun/gemm/cuda.py      Reference: bnnrun/gemm/reference.py
*/

#define TILE 16

extern "C" __global__ void baseline_gemm(const float* __restrict__ a, const float* __restrict__ w,
                                         float* __restrict__ c, int m, int n, int k)
{
    __shared__ float of_a[TILE][TILE], of_w[TILE][TILE + 1];

    const int x = threadIdx.x, y = threadIdx.y;
    const int row = blockIdx.y * TILE + y, column = blockIdx.x * TILE + x;
    const int w_row = blockIdx.x * TILE + y;
    float sum = 0;
    for (int step = 0; step < k; step += TILE) {
        const bool inside = step + x < k;
        of_a[y][x] = inside && row < m ? a[(long long)row * k + step + x] : 0.0f;
        of_w[y][x] = inside && w_row < n ? w[(long long)w_row * k + step + x] : 0.0f;
        __syncthreads();
        for (int i = 0; i < TILE; i++) sum += of_a[y][i] * of_w[x][i];
        __syncthreads();
    }
    if (row < m && column < n) c[(long long)row * n + column] = sum;
}
