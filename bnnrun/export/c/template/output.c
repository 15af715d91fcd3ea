/* Returns sum n of the output layer, of `inputs` bits in `row` words. */
static int32_t output_sum(const word *in, unsigned n, unsigned inputs, unsigned row)
{
    int32_t count = (int32_t)differing(in, output_weights + n * row, row);
    return (int32_t)inputs - count - count;
}
