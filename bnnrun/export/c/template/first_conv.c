/* Sets the bits of channels at one pixel of the first layer, a 3x3 convolution. The bits of pixels on
 * the padding are 0; what scaled pixels of 0 stand for is in the thresholds of each border class. */
static void first_conv_pixel(const uint8_t *image, word *out, word *planes, const word *weights,
                             const first_threshold *thresholds, unsigned height, unsigned width,
                             unsigned channels, unsigned outputs, unsigned y, unsigned x)
{
    unsigned border = (y == 0 ? 4u : 0u) + (y == height - 1 ? 8u : 0u);
    unsigned bit = 0, channel, i, j, plane;
    border += (x == 0 ? 1u : 0u) + (x == width - 1 ? 2u : 0u);
    thresholds += BNN_READ_8(border_classes + border) * outputs/*{levels}*/;
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
    first_bits(planes, out, weights, thresholds, outputs);
}

/* The first layer, a 3x3 convolution. Where it is pooled by 2x2, /*{pooling}*/
static void first_conv(const uint8_t *image, word *out, word *planes, const word *weights,
                       const first_threshold *thresholds, unsigned height, unsigned width,
                       unsigned channels, unsigned outputs, unsigned window)
{
    unsigned i, n, x, y;
    for (y = 0; y + window <= height; y += window) {
        for (x = 0; x + window <= width; x += window) {
            for (n = 0; n < WORDS(outputs); n++) {
                /*{clear}*/n/*{end}*/
            }
            for (i = 0; i < window * window; i++) {
                first_conv_pixel(image, out, planes, weights, thresholds, height, width, channels,
                                 outputs, y + i / window, x + i % window);
            }
            out += WORDS(outputs);
        }
    }
}
