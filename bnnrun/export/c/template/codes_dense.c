/* A fully connected layer. */
static void dense(const layer_sizes *of, const word *in, word *out, const word *weights,
                  const threshold *thresholds)
{
    const unsigned w_plane = of->outputs * of->row;
    unsigned n;
    for (n = 0; n < WORDS(of->outputs); n++) {
        clear(out, of->output_bits, of->output_plane, n);
    }
    for (n = 0; n < of->outputs; n++) {
        raise_to_sum(of, out, n, of->inputs,
                     differing_planes(in, of->input_bits, of->input_plane, weights + n * of->row,
                                      of->weight_bits, w_plane, of->row),
                     thresholds);
    }
}
