/* Sets the bits of channels at one pixel of a 3x3 convolution. Taps on the padding are left out:
 * they multiply by 0. */
static void conv_pixel(const word *in, word *out, word *patch, const word *weights,
                       const threshold *thresholds, unsigned height, unsigned width,
                       unsigned channels, unsigned outputs, unsigned y, unsigned x)
{
    const unsigned cell = WORDS(channels);
    const unsigned top = y == 0, bottom = y == height - 1 ? 2 : 3;
    const unsigned left = x == 0, right = x == width - 1 ? 2 : 3;
    const unsigned first = (3 * top + left) * cell;
    const int32_t inputs = (int32_t)((bottom - top) * (right - left) * channels);
    /* The words of a patch that are multiplied: a run a row, or a single one of whole rows. */
    unsigned runs = bottom - top, run = (right - left) * cell;
    unsigned i, j, n, rows;
    for (i = top; i < bottom; i++) {
        const word *from = in + ((y + i - 1) * width + x + left - 1) * cell;
        for (j = 0; j < run; j++) {
            patch[(3 * i + left) * cell + j] = from[j];
        }
    }
    if (right - left == 3) {
        run *= runs;
        runs = 1;
    }
    for (n = 0; n < outputs; n += rows) {
        uint_fast32_t counts[ROWS] = {0};
        rows = outputs - n < ROWS ? 1 : ROWS;
        for (i = 0; i < runs; i++) {
            unsigned at = first + 3 * i * cell;
            differing_rows(patch + at, weights + at, run, 9 * cell, rows, counts);
        }
        set_bits(out, n, rows, inputs, counts, thresholds);
        weights += rows * 9 * cell;
    }
}

/* A 3x3 convolution. Where it is pooled by 2x2, a bit of `out` is the OR of four: a window's
 * largest sum reaches the threshold where any of them does. */
static void conv(const word *in, word *out, word *patch, const word *weights,
                 const threshold *thresholds, unsigned height, unsigned width, unsigned channels,
                 unsigned outputs, unsigned window)
{
    unsigned i, n, x, y;
    for (y = 0; y + window <= height; y += window) {
        for (x = 0; x + window <= width; x += window) {
            for (n = 0; n < WORDS(outputs); n++) {
                out[n] = 0;
            }
            for (i = 0; i < window * window; i++) {
                conv_pixel(in, out, patch, weights, thresholds, height, width, channels, outputs,
                           y + i / window, x + i % window);
            }
            out += WORDS(outputs);
        }
    }
}
