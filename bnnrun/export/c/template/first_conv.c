/* Sets the bits of channels at one pixel of the first layer, a 3x3 convolution. Each pixel is
 * sum_i 2^i b_i of bits b_i, so a patch is PLANES rows of FIRST_ROW words; on the padding they are 0. The
 * threshold of a channel holds what this sum lacks: a constant for each border class. */
static void first_conv_pixel(const uint8_t *image, word *out, word *planes, const word *weights,
                             const first_threshold *thresholds, unsigned height, unsigned width,
                             unsigned channels, unsigned outputs, unsigned y, unsigned x)
{
    unsigned border = (y == 0 ? 4u : 0u) + (y == height - 1 ? 8u : 0u);
    unsigned bit = 0, channel, i, j, n, plane;
    border += (x == 0 ? 1u : 0u) + (x == width - 1 ? 2u : 0u);
    thresholds += BNN_READ_8(border_classes + border) * outputs;
    for (i = 0; i < PLANES * FIRST_ROW; i++) {
        planes[i] = 0;
    }
    for (i = 0; i < 3; i++) {
        for (j = 0; j < 3; j++) {
            /* Rows and columns are counted from 1, so that the padding is 0. */
            if (y + i < 1 || y + i > height || x + j < 1 || x + j > width) {
                bit += channels;
                continue;
            }
            for (channel = 0; channel < channels; channel++, bit++) {
                const uint8_t *map = image + channel * height * width;
                unsigned pixel = map[(y + i - 1) * width + x + j - 1];
                for (plane = 0; plane < PLANES; plane++) {
                    planes[plane * FIRST_ROW + bit / BNN_WORD_BITS] |= BIT(pixel >> plane & 1, bit);
                }
            }
        }
    }
    for (n = 0; n < outputs; n++) {
        int32_t sum = 0;
        for (plane = 0; plane < PLANES; plane++) {
            sum -= (int32_t)(differing(planes + plane * FIRST_ROW, weights, FIRST_ROW) << plane);
        }
        out[n / BNN_WORD_BITS] |= BIT(sum >= READ_FIRST_THRESHOLD(thresholds + n), n);
        weights += FIRST_ROW;
    }
}

/* The first layer, a 3x3 convolution. Where it is pooled by 2x2, a bit of `out` is the OR of four:
 * a window's largest sum reaches the threshold where any of them does. */
static void first_conv(const uint8_t *image, word *out, word *planes, const word *weights,
                       const first_threshold *thresholds, unsigned height, unsigned width,
                       unsigned channels, unsigned outputs, unsigned window)
{
    unsigned i, n, x, y;
    for (y = 0; y + window <= height; y += window) {
        for (x = 0; x + window <= width; x += window) {
            for (n = 0; n < WORDS(outputs); n++) {
                out[n] = 0;
            }
            for (i = 0; i < window * window; i++) {
                first_conv_pixel(image, out, planes, weights, thresholds, height, width, channels,
                                 outputs, y + i / window, x + i % window);
            }
            out += WORDS(outputs);
        }
    }
}
