"""Products of ±1 matrices held as bits, by several algorithms."""
