"""MNIST (28x28) by latent diffusion: networks, training and bundled weights."""
