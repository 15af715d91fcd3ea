"""One product of ±1 matrices held as bits, several ways."""
