/*
adam -- Adam's update of weights in one pass over memory: m, v, w, c, clip, Sign.

  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
  w <- w - rate c m / (sqrt(v) + eps);  with -DCLIP then to [-1, 1]
  with -DSIGNS:  signs <- +1 where w >= 0, else -1

  w, g, m, v, signs  (n,) float32, aligned to 16 bytes; all but g are written
  rate               (1,) float32, of this step: it lies on the device, so that a graph of launches
                     can be launched again with another

What is read and written is the cost: 28 bytes a weight, 32 with SIGNS. A thread takes four
neighbours, in pieces of 16 bytes.

Launch:   grid ceil(n / 1024), block 256; [-DCLIP] [-DSIGNS], without which `signs` is not looked at
Wrapper:  bnnrun/engine/cuda/fused.py      Reference: bnnrun/nn/optim.py, Adam
*/

struct Numbers {
    float b1, b1_rest, b2, b2_rest, step, eps;
};

__device__ __forceinline__ void update(float& w, float g, float& m, float& v, float& sign,
                                       const Numbers& by)
{
    m = fmaf(by.b1, m, by.b1_rest * g);
    v = fmaf(by.b2, v, by.b2_rest * (g * g));
    w = fmaf(-by.step, m / (sqrtf(v) + by.eps), w);
#ifdef CLIP
    w = fminf(1.0f, fmaxf(-1.0f, w));
#endif
    sign = w >= 0.0f ? 1.0f : -1.0f;
}

extern "C" __global__ void __launch_bounds__(256)
adam(float* __restrict__ w, const float* __restrict__ g, float* __restrict__ m,
     float* __restrict__ v, float* __restrict__ signs, const float* __restrict__ rate, float b1,
     float b1_rest, float b2, float b2_rest, float c, float eps, long long n)
{
    const long long at = 4 * (256ll * blockIdx.x + threadIdx.x);
    const Numbers by = {b1, b1_rest, b2, b2_rest, *rate * c, eps};
    if (at + 4 <= n) {
        float4 w4 = *reinterpret_cast<float4*>(w + at), m4 = *reinterpret_cast<float4*>(m + at);
        float4 v4 = *reinterpret_cast<float4*>(v + at), s4;
        const float4 g4 = *reinterpret_cast<const float4*>(g + at);
        update(w4.x, g4.x, m4.x, v4.x, s4.x, by);
        update(w4.y, g4.y, m4.y, v4.y, s4.y, by);
        update(w4.z, g4.z, m4.z, v4.z, s4.z, by);
        update(w4.w, g4.w, m4.w, v4.w, s4.w, by);
        *reinterpret_cast<float4*>(w + at) = w4;
        *reinterpret_cast<float4*>(m + at) = m4;
        *reinterpret_cast<float4*>(v + at) = v4;
#ifdef SIGNS
        *reinterpret_cast<float4*>(signs + at) = s4;
#endif
        return;
    }
    for (long long i = at; i < n; i++) {
        float sign;
        update(w[i], g[i], m[i], v[i], sign, by);
#ifdef SIGNS
        signs[i] = sign;
#endif
    }
}
