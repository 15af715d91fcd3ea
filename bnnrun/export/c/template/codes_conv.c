/* Raises the numbers of channels at one pixel of a 3x3 convolution. Taps on the padding are left out:
 * they multiply by 0. */
static void conv_pixel(const layer_sizes *of, const word *in, word *out, word *patch,
                       const word *weights, const threshold *thresholds, unsigned y, unsigned x)
{
    const unsigned cell = WORDS(of->inputs), row = 9 * cell;
    const unsigned top = y == 0, bottom = y == of->height - 1 ? 2 : 3;
    const unsigned left = x == 0, right = x == of->width - 1 ? 2 : 3;
    const unsigned inputs = (bottom - top) * (right - left) * of->inputs;
    const unsigned run = (right - left) * cell;
    unsigned i, j, n, plane;
    for (plane = 0; plane < of->input_bits; plane++) {
        for (i = top; i < bottom; i++) {
            const word *from = in + plane * of->input_plane
                               + ((y + i - 1) * of->width + x + left - 1) * cell;
            for (j = 0; j < run; j++) {
                patch[plane * row + (3 * i + left) * cell + j] = from[j];
            }
        }
    }
    for (n = 0; n < of->outputs; n++) {
        uint_fast32_t count = 0;
        for (i = top; i < bottom; i++) {
            const unsigned at = (3 * i + left) * cell;
            count += differing_planes(patch + at, of->input_bits, row, weights + n * row + at,
                                      of->weight_bits, of->outputs * row, run);
        }
        raise_to_sum(of, out, n, inputs, count, thresholds);
    }
}

/* A 3x3 convolution. Where it is pooled by 2x2, a number of `out` is the largest of four. */
static void conv(const layer_sizes *of, const word *in, word *out, word *patch,
                 const word *weights, const threshold *thresholds)
{
    unsigned i, n, x, y;
    for (y = 0; y + of->window <= of->height; y += of->window) {
        for (x = 0; x + of->window <= of->width; x += of->window) {
            for (n = 0; n < WORDS(of->outputs); n++) {
                clear(out, of->output_bits, of->output_plane, n);
            }
            for (i = 0; i < of->window * of->window; i++) {
                conv_pixel(of, in, out, patch, weights, thresholds, y + i / of->window,
                           x + i % of->window);
            }
            out += WORDS(of->outputs);
        }
    }
}
