"""What the paper prints (arXiv:1602.02830v3; NIPS 2016), in its own units."""

# Table 2: energy of one operation at 45 nm, in pJ, from Horowitz (2014): (multiply, add).
ENERGY_OPERATION_PJ = {
    "8-bit integer": (0.2, 0.03),
    "32-bit integer": (3.1, 0.1),
    "16-bit float": (1.1, 0.4),
    "32-bit float": (3.7, 0.9),
}

# Table 3: energy of one access to 64 bits, in pJ, by the memory's size: (from, to).
ENERGY_ACCESS_PJ = {
    "8K": (10.0, 10.0),
    "32K": (20.0, 20.0),
    "1M": (100.0, 100.0),
    "DRAM": (1300.0, 2600.0),
}
