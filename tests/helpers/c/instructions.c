/* Counts the instructions of a prediction on a Cortex-M3, as QEMU executes one each nanosecond of
 * its clock with `-icount shift=0`. Built like harness.c; prints the mean of the images of
 * images.bin. */

#include <stdio.h>

#include HEADER

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define OF(what) JOIN(NETWORK, what)

/* The timer of the core: 25 MHz on this board, so a tick is 40 instructions; it counts down. */
#define SYST_CSR (*(volatile uint32_t *)0xe000e010u)
#define SYST_RVR (*(volatile uint32_t *)0xe000e014u)
#define SYST_CVR (*(volatile uint32_t *)0xe000e018u)
#define TICK 40u

static uint8_t image[PREFIX(IMAGE_BYTES)];
static uint64_t scratch[(PREFIX(SCRATCH_BYTES) + 7) / 8];

int main(void)
{
    FILE *images = fopen("images.bin", "rb");
    uint64_t ticks = 0;
    unsigned long count = 0;
    SYST_RVR = 0x00ffffffu;
    SYST_CSR = 5; /* on, by the core's clock */
    while (images && fread(image, 1, sizeof image, images) == sizeof image) {
        uint32_t begun;
        SYST_CVR = 0;
        begun = SYST_CVR;
        (void)OF(_predict)(image, 0, scratch);
        ticks += (begun - SYST_CVR) & 0x00ffffffu;
        count++;
    }
    printf("%lu images, %lu instructions each\n", count, count ? (unsigned long)(ticks * TICK / count) : 0);
    return count == 0;
}
