/* Runs a network on the images of a file; writes a line for each: its class, sums, scores.
 *
 * Compiled with -DNETWORK=name, -DHEADER="name.h" and -DPREFIX(x)=NAME_##x. The two files have fixed
 * names: a program under semihosting takes no arguments. */

#include <stdio.h>

#include HEADER

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define OF(what) JOIN(NETWORK, what)

static uint8_t image[PREFIX(IMAGE_BYTES)];
static uint64_t scratch[(PREFIX(SCRATCH_BYTES) + 7) / 8 + 1];
static int32_t sums[PREFIX(CLASSES)];
static OF(_score_t) scores[PREFIX(CLASSES)];

int main(void)
{
    const uint64_t guard = 0x0123456789abcdefULL;
    const unsigned end = (PREFIX(SCRATCH_BYTES) + 7) / 8;
    FILE *images = fopen("images.bin", "rb"), *answers = fopen("answers.txt", "wb");
    if (!images || !answers) {
        return 2;
    }
    scratch[end] = guard;
    while (fread(image, 1, sizeof image, images) == sizeof image) {
        int found, alone, n;
        OF(_sums)(image, sums, scratch);
        found = OF(_predict)(image, scores, scratch);
        alone = OF(_predict)(image, 0, scratch);
        fprintf(answers, "%d %d", found, alone);
        for (n = 0; n < PREFIX(CLASSES); n++) {
            fprintf(answers, " %ld", (long)sums[n]);
        }
        for (n = 0; n < PREFIX(CLASSES); n++) {
#ifdef DOUBLE_SCORES
            fprintf(answers, " %.17g", (double)scores[n]);
#else
            fprintf(answers, " %lld", (long long)scores[n]);
#endif
        }
        fprintf(answers, "\n");
    }
    fclose(images);
    return fclose(answers) || scratch[end] != guard;
}
