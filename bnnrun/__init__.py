"""bnnrun: Binarized Neural Networks (Courbariaux et al., 2016), reproduced.

Importing the package imports neither torch nor CuPy.
"""

__version__ = "0.1.0"
