/* A number of k bits is the integer 2c - n of its code c, 0 to n = 2^k - 1, which is sum_i 2^i b_i of
 * b_i = +1 where bit i of c is 1, else -1. Plane i holds bits i; planes follow each other. A product
 * of two numbers is the sum over every two planes of 2^(i + j) times a product of +1 and -1. */

/* Returns the sum over every two planes of 2^(i + j) times the number of bits in which n words of
 * plane i of a and of plane j of w differ. `a_plane` and `w_plane` are the words of a plane. */
static uint_fast32_t differing_planes(const word *a, unsigned a_bits, unsigned a_plane,
                                      const word *w, unsigned w_bits, unsigned w_plane, unsigned n)
{
    uint_fast32_t count = 0;
    unsigned i, j;
    for (i = 0; i < a_bits; i++) {
        for (j = 0; j < w_bits; j++) {
            count += differing(a + i * a_plane, w + j * w_plane, n) << (i + j);
        }
    }
    return count;
}

/* Sets word n of every plane to 0. */
static void clear(word *out, unsigned bits, unsigned plane, unsigned n)
{
    unsigned i;
    for (i = 0; i < bits; i++) {
        out[i * plane + n] = 0;
    }
}

/* Makes number n the larger of its code and `code`: of the pixels that are pooled, the largest. The
 * OR of codes would not be: 1 and 2 give 3. */
static void raise_code(word *out, unsigned bits, unsigned plane, unsigned n, unsigned code)
{
    unsigned before = 0, i;
    word *at = out + n / BNN_WORD_BITS;
    for (i = 0; i < bits; i++) {
        before |= ((unsigned)(at[i * plane] >> n % BNN_WORD_BITS) & 1u) << i;
    }
    if (code > before) {
        for (i = 0; i < bits; i++) {
            at[i * plane] = (word)(at[i * plane] ^ BIT((code ^ before) >> i & 1u, n));
        }
    }
}
