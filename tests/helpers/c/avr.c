/* Runs NAME_test.c, whose main is renamed, on an ATmega; tells its result by the serial port. */

#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>

int network_test(void);

static void put(char c)
{
    while (!(UCSR0A & _BV(UDRE0))) {
    }
    UDR0 = (uint8_t)c;
}

int main(void)
{
    int wrong;
    UCSR0B = _BV(TXEN0);
    wrong = network_test();
    put('W');
    put((char)('0' + wrong));
    put('\n'); /* the simulator prints whole lines */
    cli();
    sleep_mode(); /* without interrupts it is the end, which the simulator takes for it */
    return 0;
}
