"""How the networks of `mnist` are trained: one thread, reproducible by number of iterations and seed."""
