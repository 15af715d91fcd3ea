/* The first layer, fully connected. */
static void first_dense(const uint8_t *image, word *out, word *planes, const word *weights,
                        const first_threshold *thresholds, unsigned inputs, unsigned outputs)
{
    unsigned i, plane;
    for (i = 0; i < PLANES * FIRST_ROW; i++) {
        planes[i] = 0;
    }
    for (i = 0; i < inputs; i++) {
        for (plane = 0; plane < PLANES; plane++) {
            planes[plane * FIRST_ROW + i / BNN_WORD_BITS] |= BIT(image[i] >> plane & 1, i);
        }
    }
    for (i = 0; i < WORDS(outputs); i++) {
        /*{clear}*/i/*{end}*/
    }
    first_bits(planes, out, weights, thresholds, outputs);
}
