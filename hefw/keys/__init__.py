"""Key sets that a key holder keeps: the secret key in a file of its owner's, and evaluation keys made once."""
