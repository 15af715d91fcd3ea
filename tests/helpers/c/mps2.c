/* Start of a program on a bare Cortex-M3; its files are the host's, by semihosting. */

#include <stdint.h>
#include <stdlib.h>

extern uint8_t data_from[], data_begin[], data_end[], bss_begin[], bss_end[], stack_top[];
extern void initialise_monitor_handles(void);
int main(void);

/* What the compiler's own start files would hold, for exit(). */
void _init(void)
{
}
void _fini(void)
{
}

void reset(void)
{
    uint8_t *to, *from = data_from;
    for (to = data_begin; to < data_end;) {
        *to++ = *from++;
    }
    for (to = bss_begin; to < bss_end;) {
        *to++ = 0;
    }
    initialise_monitor_handles();
    exit(main());
}

static void fault(void)
{
    _Exit(3);
}

__attribute__((section(".vectors"), used)) static const struct {
    void *stack;
    void (*handlers[6])(void); /* reset, NMI, hard fault, memory, bus, usage */
} vectors = {stack_top, {reset, fault, fault, fault, fault, fault}};
