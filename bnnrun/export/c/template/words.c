#include "bnn.h"

/* Bit 1 is +1 and bit 0 is -1: the product of two words is the number of bits in which they do not
 * differ, less the number of those in which they do. Bits past the end of a row are 0 in both. */

#if BNN_WORD_BITS == 8
typedef uint8_t word;
#define READ_WORD(address) BNN_READ_8(address)
#elif BNN_WORD_BITS == 16
typedef uint16_t word;
#define READ_WORD(address) BNN_READ_16(address)
#elif BNN_WORD_BITS == 32
typedef uint32_t word;
#define READ_WORD(address) BNN_READ_32(address)
#elif BNN_WORD_BITS == 64
typedef uint64_t word;
#define READ_WORD(address) BNN_READ_64(address)
#else
#error "BNN_WORD_BITS: expected 8, 16, 32 or 64"
#endif

/* Words that hold a number of bits. */
#define WORDS(bits) (((bits) + BNN_WORD_BITS - 1u) / BNN_WORD_BITS)
/* `bit`, 0 or 1, at its place in the word that holds bit n of a row. A shift and no branch: which
 * way the bits of a network go, no processor foresees. */
#define BIT(bit, n) ((word)((word)(bit) << ((n) % BNN_WORD_BITS)))
/* A word of equal bytes. */
#define BYTES(byte) ((word)((word) ~(word)0 / 255u * (byte)))

#if BNN_POPCOUNT == BNN_BUILTIN
#if BNN_WORD_BITS == 64
#define POPCOUNT(x) ((unsigned)__builtin_popcountll(x))
#elif BNN_WORD_BITS == 32
#define POPCOUNT(x) ((unsigned)__builtin_popcountl(x))
#else
#define POPCOUNT(x) ((unsigned)__builtin_popcount(x))
#endif
#elif BNN_POPCOUNT == BNN_LOOKUP
#define POPCOUNT2(n) n, n + 1, n + 1, n + 2
#define POPCOUNT4(n) POPCOUNT2(n), POPCOUNT2(n + 1), POPCOUNT2(n + 1), POPCOUNT2(n + 2)
#define POPCOUNT6(n) POPCOUNT4(n), POPCOUNT4(n + 1), POPCOUNT4(n + 1), POPCOUNT4(n + 2)
static const uint8_t byte_popcounts[256] BNN_TABLE = {
    POPCOUNT6(0), POPCOUNT6(1), POPCOUNT6(1), POPCOUNT6(2)
};

static unsigned popcount(word x)
{
    unsigned count = 0, i;
    for (i = 0; i < BNN_WORD_BITS; i += 8) {
        count += BNN_READ_8(byte_popcounts + (uint8_t)(x >> i));
    }
    return count;
}
#define POPCOUNT(x) popcount(x)
#elif BNN_POPCOUNT != BNN_SWAR
#error "BNN_POPCOUNT: expected BNN_BUILTIN, BNN_SWAR or BNN_LOOKUP"
#endif

/* Returns the number of bits in which n words of a and w differ. */
static inline uint_fast32_t differing(const word *a, const word *w, unsigned n)
{
    uint_fast32_t count = 0;
#if BNN_POPCOUNT == BNN_SWAR
    while (n > 0) {
        /* Each byte counts up to 8 bits a word: 31 words fit. */
        unsigned block = n < 31 ? n : 31;
        word bytes = 0;
        n -= block;
        for (; block > 0; block--) {
            word x = (word)(*a++ ^ READ_WORD(w));
            w++;
            x = (word)(x - (x >> 1 & BYTES(0x55u)));
            x = (word)((x & BYTES(0x33u)) + (x >> 2 & BYTES(0x33u)));
            bytes = (word)(bytes + ((x + (x >> 4)) & BYTES(0x0fu)));
        }
#if BNN_WORD_BITS == 8
        count += bytes;
#else
        {
            word pairs = (word)((bytes & (word) ~(word)0 / 0xffffu * 0xffu)
                                + (bytes >> 8 & (word) ~(word)0 / 0xffffu * 0xffu));
            word ones = (word) ~(word)0 / 0xffffu;
            count += (uint_fast32_t)((word)(pairs * ones) >> (BNN_WORD_BITS - 16));
        }
#endif
    }
#else
    unsigned i;
    for (i = 0; i < n; i++) {
        count += POPCOUNT((word)(a[i] ^ READ_WORD(w + i)));
    }
#endif
    return count;
}
