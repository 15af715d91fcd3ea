/* Runs the network on images whose sums are known; returns the number of those that differ. */

#include "bnn.h"

#ifndef BNN_TEST_SILENT
#include <stdio.h>
#endif

#define IMAGES /*{count}*/

/* Every pixel 0, every pixel the largest, then random ones. */
static const uint8_t images[IMAGES][BNN_IMAGE_BYTES] BNN_TABLE = {
/*{images}*/
};

/* By the reference implementation. */
static const int32_t expected_sums[IMAGES][BNN_CLASSES] = {
/*{sums}*/
};
static const int expected_class[IMAGES] = {/*{classes}*/};

static uint8_t image[BNN_IMAGE_BYTES];
/* Aligned for any word. */
static uint64_t scratch[(BNN_SCRATCH_BYTES + 7) / 8];
static bnn_score_t scores[BNN_CLASSES];
static int32_t sums[BNN_CLASSES];

int main(void)
{
    int wrong = 0, i, found;
    unsigned n;
    for (i = 0; i < IMAGES; i++) {
        int same = 1;
        for (n = 0; n < BNN_IMAGE_BYTES; n++) {
            image[n] = BNN_READ_8(&images[i][n]);
        }
        bnn_sums(image, sums, scratch);
        found = bnn_predict(image, scores, scratch);
        for (n = 0; n < BNN_CLASSES; n++) {
            same = same && sums[n] == expected_sums[i][n] && scores[n] <= scores[found];
        }
        if (!same || found != expected_class[i]) {
            wrong++;
        }
    }
#ifndef BNN_TEST_SILENT
    printf("bnn: %d of %d images as expected\n", IMAGES - wrong, IMAGES);
#endif
    return wrong;
}
