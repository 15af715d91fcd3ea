#ifndef BNN_H
#define BNN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Macros that may be defined, alike for all files that include this one:
 *   BNN_WORD_BITS      bits that are multiplied at once: 8, 16, 32 or 64
 *   BNN_POPCOUNT       BNN_BUILTIN: of the compiler, an instruction where the target has one;
 *                      BNN_SWAR: shifts and masks; BNN_LOOKUP: a table of 256 bytes
 *   BNN_DOUBLE_SCORES  scores as the trained network's, in floating point
 *   BNN_TABLE          attribute of the constant tables; with it BNN_READ_8, _16, _32 and _64,
 *                      which read an element at an address; for AVR they are defined below */

#ifndef BNN_WORD_BITS
#if defined(__AVR__)
#define BNN_WORD_BITS 8
#elif UINTPTR_MAX <= 0xffff
#define BNN_WORD_BITS 16
#elif UINTPTR_MAX <= 0xffffffff
#define BNN_WORD_BITS 32
#else
#define BNN_WORD_BITS 64
#endif
#endif

#define BNN_BUILTIN 1
#define BNN_SWAR 2
#define BNN_LOOKUP 3
#ifndef BNN_POPCOUNT
#if defined(__AVR__)
#define BNN_POPCOUNT BNN_LOOKUP
#elif defined(__POPCNT__) || defined(__aarch64__) || defined(__riscv_zbb) || defined(__loongarch64)
#define BNN_POPCOUNT BNN_BUILTIN
#else
#define BNN_POPCOUNT BNN_SWAR
#endif
#endif

#ifndef BNN_TABLE
#if defined(__AVR__)
#include <avr/pgmspace.h>
#define BNN_TABLE PROGMEM
#define BNN_READ_8(address) pgm_read_byte(address)
#define BNN_READ_16(address) pgm_read_word(address)
#define BNN_READ_32(address) pgm_read_dword(address)
#define BNN_READ_64(address)                                        \
    ((uint64_t)pgm_read_dword((const uint8_t *)(address) + 4) << 32 \
     | pgm_read_dword((const uint8_t *)(address)))
#else
#define BNN_TABLE
#define BNN_READ_8(address) (*(address))
#define BNN_READ_16(address) (*(address))
#define BNN_READ_32(address) (*(address))
#define BNN_READ_64(address) (*(address))
#endif
#endif

/*{sizes}*/

#ifdef BNN_DOUBLE_SCORES
typedef double bnn_score_t;
#else
typedef /*{score_type}*/ bnn_score_t;
#endif

/* Names of the classes, UTF-8. */
extern const char *const bnn_class_names[BNN_CLASSES];

/* Predicts the class of an image.
 *
 * image:   BNN_IMAGE_BYTES pixels, 0 to BNN_MAX_PIXEL, channel by channel, row by row
 * scores:  takes BNN_CLASSES scores, of which the largest is the class's; 0: none are written
 * scratch: BNN_SCRATCH_BYTES of memory, aligned to BNN_SCRATCH_ALIGN, for the time of the call
 * returns  the class, 0 to BNN_CLASSES - 1; of equal scores the first */
int bnn_predict(const uint8_t *image, bnn_score_t *scores, void *scratch);

/* Computes the sums of the output layer, from which the scores are made.
 *
 * sums: takes BNN_CLASSES sums of products of /*{numbers}*/; the others as of bnn_predict */
void bnn_sums(const uint8_t *image, int32_t *sums, void *scratch);

#ifdef __cplusplus
}
#endif

#endif
