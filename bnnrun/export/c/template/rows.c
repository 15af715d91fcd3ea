/* Rows of weights that are compared at once: one read of the input serves them all. */
#if BNN_POPCOUNT == BNN_BUILTIN
#define ROWS 4u
#else
#define ROWS 1u
#endif

/* Adds to counts[r] the number of bits in which n words of a and of row r of w differ; a row of w
 * has `row` words. `rows` is ROWS or 1. */
static void differing_rows(const word *a, const word *w, unsigned n, unsigned row, unsigned rows,
                           uint_fast32_t *counts)
{
#if ROWS == 4
    if (rows == ROWS) {
        const word *w1 = w + row, *w2 = w1 + row, *w3 = w2 + row;
        uint_fast32_t count0 = 0, count1 = 0, count2 = 0, count3 = 0;
        unsigned i;
        for (i = 0; i < n; i++) {
            count0 += POPCOUNT((word)(a[i] ^ READ_WORD(w + i)));
            count1 += POPCOUNT((word)(a[i] ^ READ_WORD(w1 + i)));
            count2 += POPCOUNT((word)(a[i] ^ READ_WORD(w2 + i)));
            count3 += POPCOUNT((word)(a[i] ^ READ_WORD(w3 + i)));
        }
        counts[0] += count0;
        counts[1] += count1;
        counts[2] += count2;
        counts[3] += count3;
        return;
    }
#else
    (void)row;
    (void)rows;
#endif
    counts[0] += differing(a, w, n);
}

/* Sets the bits of channels n to n + rows - 1 whose sums reach their thresholds. A sum of `inputs`
 * products of +1 and -1, of which `counts[r]` are -1, is inputs - 2 counts[r]. */
static void set_bits(word *out, unsigned n, unsigned rows, int32_t inputs,
                     const uint_fast32_t *counts, const threshold *thresholds)
{
    unsigned r;
    for (r = 0; r < rows; r++, n++) {
        int32_t count = (int32_t)counts[r];
        out[n / BNN_WORD_BITS] |= BIT(inputs - count - count >= READ_THRESHOLD(thresholds + n), n);
    }
}
