"""How good a model's pictures are: in plaintext, with the noise of CKKS, and on ciphertext."""
