/* A layer: numbers, bits of a number, words of a plane, and the integer that 1 · 1 is. */
typedef struct {
    unsigned height, width, inputs, outputs, window, row;
    unsigned input_bits, weight_bits, output_bits, input_plane, output_plane;
    int32_t unit;
} layer_sizes;

/* Raises number n to the code of a sum: the number of its ascending thresholds that the sum reaches.
 * Of `inputs` products, the sum is inputs · unit - 2 count. */
static void raise_to_sum(const layer_sizes *of, word *out, unsigned n, unsigned inputs,
                         uint_fast32_t count, const threshold *thresholds)
{
    const int32_t sum = (int32_t)inputs * of->unit - (int32_t)count - (int32_t)count;
    const unsigned levels = (1u << of->output_bits) - 1u;
    unsigned code = 0;
    while (code < levels && sum >= READ_THRESHOLD(thresholds + n * levels + code)) {
        code++;
    }
    raise_code(out, of->output_bits, of->output_plane, n, code);
}
