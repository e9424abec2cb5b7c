"""What every other median of a run is divided by when runs are compared: SEAL's own calls, nothing of hefw.

See `python -m benchmarks.runs`.
"""

from __future__ import annotations

from typing import Any

import _sealapi_cpp as seal

RING_DIMENSION = 16384
PRIMES = 6
PRODUCTS = 50


def test_baseline(benchmark: Any) -> None:
    """A product with a plaintext and a sum, 50 times."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(RING_DIMENSION)
    parameters.set_coeff_modulus(seal.CoeffModulus.Create(RING_DIMENSION, [60] * (PRIMES + 1)))
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
    secret = seal.KeyGenerator(context).secret_key()
    encryptor, evaluator = seal.Encryptor(context, secret), seal.Evaluator(context)
    plain, ct, total = seal.Plaintext(), seal.Ciphertext(), seal.Ciphertext()
    seal.CKKSEncoder(context).encode([float(k % 7) for k in range(RING_DIMENSION // 2)], 2.0**30, plain)
    encryptor.encrypt_symmetric(plain, ct)
    evaluator.multiply_plain(ct, plain, total)
    product = seal.Ciphertext()

    def products() -> None:
        for _ in range(PRODUCTS):
            evaluator.multiply_plain(ct, plain, product)
            evaluator.add_inplace(total, product)

    benchmark(products)
