/* Raises the first layer's numbers to the codes of their sums. Each pixel is sum_i 2^i b_i of bits
 * b_i, so a row of pixels is PLANES rows of FIRST_ROW words. A threshold holds what this sum lacks: a
 * constant. */
static void first_bits(const word *planes, word *out, const word *weights,
                       const first_threshold *thresholds, unsigned outputs)
{
    unsigned n;
    for (n = 0; n < outputs; n++) {
        const int32_t sum = -(int32_t)differing_planes(planes, PLANES, FIRST_ROW, weights,
                                                       FIRST_WEIGHT_BITS, outputs * FIRST_ROW,
                                                       FIRST_ROW);
        unsigned code = 0;
        while (code < FIRST_LEVELS && sum >= READ_FIRST_THRESHOLD(thresholds + code)) {
            code++;
        }
        raise_code(out, FIRST_OUTPUT_BITS, FIRST_PLANE, n, code);
        weights += FIRST_ROW;
        thresholds += FIRST_LEVELS;
    }
}
