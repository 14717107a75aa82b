"""MNIST by hand: the data, layers in NumPy with each gradient under its forward pass, two networks, and their training."""
