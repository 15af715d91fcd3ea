/* Sets the bits of the first layer's channels. Each pixel is sum_i 2^i b_i of bits b_i, so a row of
 * pixels is PLANES rows of FIRST_ROW words. A threshold holds what this sum lacks: a constant. */
static void first_bits(const word *planes, word *out, const word *weights,
                       const first_threshold *thresholds, unsigned outputs)
{
    unsigned n, plane;
    for (n = 0; n < outputs; n++) {
        int32_t sum = 0;
        for (plane = 0; plane < PLANES; plane++) {
            sum -= (int32_t)(differing(planes + plane * FIRST_ROW, weights, FIRST_ROW) << plane);
        }
        out[n / BNN_WORD_BITS] |= BIT(sum >= READ_FIRST_THRESHOLD(thresholds + n), n);
        weights += FIRST_ROW;
    }
}
