/* Returns sum n of the output layer, of `inputs` numbers in rows of `row` words. */
static int32_t output_sum(const word *in, unsigned n, unsigned inputs, unsigned row)
{
    int32_t count = (int32_t)differing_planes(in, OUTPUT_INPUT_BITS, row, output_weights + n * row,
                                              OUTPUT_WEIGHT_BITS, BNN_CLASSES * row, row);
    return (int32_t)inputs * OUTPUT_UNIT - count - count;
}
