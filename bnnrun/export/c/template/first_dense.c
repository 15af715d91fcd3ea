/* The first layer, fully connected. Each pixel is sum_i 2^i b_i of bits b_i, so a row of pixels is
 * PLANES rows of FIRST_ROW words. The threshold of a channel holds what this sum lacks: a constant. */
static void first_dense(const uint8_t *image, word *out, word *planes, const word *weights,
                        const first_threshold *thresholds, unsigned inputs, unsigned outputs)
{
    unsigned i, n, plane;
    for (i = 0; i < PLANES * FIRST_ROW; i++) {
        planes[i] = 0;
    }
    for (i = 0; i < inputs; i++) {
        for (plane = 0; plane < PLANES; plane++) {
            planes[plane * FIRST_ROW + i / BNN_WORD_BITS] |= BIT(image[i] >> plane & 1, i);
        }
    }
    for (i = 0; i < WORDS(outputs); i++) {
        out[i] = 0;
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
