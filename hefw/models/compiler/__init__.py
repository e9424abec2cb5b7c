"""From a torch module to a graph that a server evaluates on ciphertext."""
