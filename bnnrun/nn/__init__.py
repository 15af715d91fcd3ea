"""The networks in training form, in PyTorch: real weights that are binarized when used."""
