"""`sparse`: the selection of `min_distortion`, its encrypted entries sent as a list."""

from __future__ import annotations

from hefw.strategies.min_distortion import MinDistortion


class Sparse(MinDistortion):
    """HE-Diffusion's sparse way (arXiv 2403.05794): a COO list, values dense in few ciphertexts, indices in the clear.

    A protocol that keeps entries in their places computes what it computes for `min_distortion`.
    """

    packed = True
