/*
norm_sign -- batch normalization and Sign of a hidden layer in training, forward and backward.

  forward   mean, inv = 1 / sqrt(var + eps) of each column;  y = (p - mean) scale + beta, scale =
            gamma inv;  a = +1 where y >= 0, else -1
  backward  g_y = g where |y| <= limit, else 0 (limit: 1 of ste, infinite of identity)
            g_p = scale (g_y - mean(g_y) - x mean(g_y x)), x = (p - mean) inv
            g_gamma = sum(g_y x);  g_beta = sum(g_y)

  p, a, g, g_p  (R, N) float32, row-major: images, or their pixels, by channels
  parts         (ceil(R / 512), 2, N) float64: sums over 512 rows
  line          (4, N) float32: mean, scale, beta, inv
  factors       (5, N) float32: k0, k1, k2 of g_p = k0 g_y + k1 + k2 p; g_gamma, g_beta

Six kernels of one text, -DPASS=
  MOMENTS        parts <- sums of p and of p^2
  LINE           line <- by the parts, gamma and beta
  SIGN           a
  GRADIENT_SUMS  parts <- sums of g_y and of g_y (p - mean)
  FACTORS        factors <- by the parts, gamma and the line
  GRADIENT       g_p

y is made again from p on the way back, which costs less than to read it. A warp reads 32 neighbours
of a row. Sums are in float64 and taken in the same order each time: a step can be repeated to the
bit. LINE and FACTORS are a thread a column.

Launch:   MOMENTS, GRADIENT_SUMS  grid (ceil(N / 32), ceil(R / 512)), block 256
          LINE, FACTORS           grid ceil(N / 256), block 256
          SIGN, GRADIENT          grid (ceil(N / 32), rows / 128 or fewer), block 256
Wrapper:  bnnrun/engine/cuda/fused.py      Reference: bnnrun/nn/norm.py, BatchNorm
*/

#define MOMENTS 0
#define LINE 1
#define SIGN 2
#define GRADIENT_SUMS 3
#define FACTORS 4
#define GRADIENT 5

#define ROWS 512
#define SOME 128

// Of a column, what `line` says of it.
struct Column {
    float mean, scale, beta;

    __device__ Column(const float* line, int column, int n)
        : mean(line[column]), scale(line[n + column]), beta(line[2 * n + column])
    {
    }

    __device__ float y(float p) const { return fmaf(p - mean, scale, beta); }
    __device__ float g_y(float p, float g, float limit) const
    {
        return fabsf(y(p)) <= limit ? g : 0.0f;
    }
};

#if PASS == MOMENTS || PASS == GRADIENT_SUMS

// The sums that the eight rows of threads hold, in order, to `parts`.
__device__ __forceinline__ void leave(double first, double second, double* parts, int column, int n)
{
    __shared__ double sums[2][8][32];
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32;
    sums[0][row][lane] = first;
    sums[1][row][lane] = second;
    __syncthreads();
    if (row < 2 && column < n) {
        double sum = 0;
        for (int i = 0; i < 8; i++) sum += sums[row][i][lane];
        parts[(2ll * blockIdx.y + row) * n + column] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(256)
norm_sign(const float* __restrict__ p,
#if PASS == GRADIENT_SUMS
          const float* __restrict__ g, const float* __restrict__ line, float limit,
#endif
          double* __restrict__ parts, long long r, int n)
{
    const int column = 32 * blockIdx.x + threadIdx.x % 32;
    const long long begin = (long long)ROWS * blockIdx.y;
    const long long end = begin + ROWS < r ? begin + ROWS : r;
    double first = 0, second = 0;
    if (column < n) {
#if PASS == GRADIENT_SUMS
        const Column of(line, column, n);
#endif
        for (long long row = begin + threadIdx.x / 32; row < end; row += 8) {
            const float x = p[row * n + column];
#if PASS == MOMENTS
            first += x;
            second += (double)x * x;
#else
            const float g_y = of.g_y(x, g[row * n + column], limit);
            first += g_y;
            second += (double)g_y * (x - of.mean);
#endif
        }
    }
    leave(first, second, parts, column, n);
}

#elif PASS == LINE || PASS == FACTORS

extern "C" __global__ void __launch_bounds__(256)
norm_sign(const double* __restrict__ parts, const float* __restrict__ gamma,
#if PASS == LINE
          const float* __restrict__ beta, float eps, float* __restrict__ line,
#else
          const float* __restrict__ line, float* __restrict__ factors,
#endif
          long long r, int n)
{
    const int column = 256 * blockIdx.x + threadIdx.x;
    if (column >= n) return;
    double first = 0, second = 0;
    for (long long part = 0; part < (r + ROWS - 1) / ROWS; part++) {
        first += parts[2 * part * n + column];
        second += parts[(2 * part + 1) * n + column];
    }
#if PASS == LINE
    const double mean = first / r, var = second / r - mean * mean;
    const double inv = 1.0 / sqrt((var > 0 ? var : 0) + eps);
    line[column] = (float)mean;
    line[n + column] = (float)(gamma[column] * inv);
    line[2 * n + column] = beta[column];
    line[3 * n + column] = (float)inv;
#else
    const double mean = line[column], inv = line[3 * n + column];
    const double along = second * inv, k0 = gamma[column] * inv, k2 = -k0 * inv * along / r;
    factors[column] = (float)k0;
    factors[n + column] = (float)(-k0 * first / r - k2 * mean);
    factors[2 * n + column] = (float)k2;
    factors[3 * n + column] = (float)along;
    factors[4 * n + column] = (float)first;
#endif
}

#else

extern "C" __global__ void __launch_bounds__(256)
norm_sign(const float* __restrict__ p,
#if PASS == GRADIENT
          const float* __restrict__ g, const float* __restrict__ factors, float limit,
#endif
          const float* __restrict__ line, float* __restrict__ out, long long r, int n)
{
    const int column = 32 * blockIdx.x + threadIdx.x % 32;
    if (column >= n) return;
    const Column of(line, column, n);
#if PASS == GRADIENT
    const float k0 = factors[column], k1 = factors[n + column], k2 = factors[2 * n + column];
#endif
    for (long long begin = (long long)SOME * blockIdx.y; begin < r;
         begin += (long long)SOME * gridDim.y) {
        const long long end = begin + SOME < r ? begin + SOME : r;
#pragma unroll 4
        for (long long row = begin + threadIdx.x / 32; row < end; row += 8) {
            const long long at = row * n + column;
            const float x = p[at];
#if PASS == SIGN
            out[at] = of.y(x) >= 0.0f ? 1.0f : -1.0f;
#else
            out[at] = fmaf(k0, of.g_y(x, g[at], limit), fmaf(k2, x, k1));
#endif
        }
    }
}

#endif
