"""How training is computed fast: each engine agrees with nn/engine.py and falls back to it."""
