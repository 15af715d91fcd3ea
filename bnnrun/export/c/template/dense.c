/* A fully connected layer: bit n of `out` is 1 where sum n reaches its threshold. `row` is the
 * number of words of the `inputs` bits. */
static void dense(const word *in, word *out, const word *weights, const threshold *thresholds,
                  unsigned inputs, unsigned row, unsigned outputs)
{
    unsigned n, rows;
    for (n = 0; n < WORDS(outputs); n++) {
        out[n] = 0;
    }
    for (n = 0; n < outputs; n += rows) {
        uint_fast32_t counts[ROWS] = {0};
        rows = outputs - n < ROWS ? 1 : ROWS;
        differing_rows(in, weights, row, row, rows, counts);
        set_bits(out, n, rows, (int32_t)inputs, counts, thresholds);
        weights += rows * row;
    }
}
