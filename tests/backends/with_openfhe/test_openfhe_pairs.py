"""Two images a slot on OpenFHE, whose i is the same in all slots: both images are those of the plaintext twin."""

from __future__ import annotations

import openfhe_backend

from hefw.core.lower import Request, lower
from hefw.core.params import CkksParams
from hefw.testing.graphs import samples, small_unet
from hefw.testing.session import Session, plain, psnr

SMALL = CkksParams(2048, (60, 50, 50, 50, 50, 50), (60, 60), 40.0, allow_insecure=True)


def test_a_small_unet_with_two_images_a_slot() -> None:
    backend, graph = openfhe_backend.chosen(), small_unet()
    assert not backend.capabilities.alternating_imaginary
    program = lower(graph, backend, Request(params=SMALL, pairs=True))
    values = samples(program.interface.images, seed=3)
    assert len(values["latent"]) == 2 * program.interface.batch
    for found, wanted in zip(Session(program, backend).trajectory(values), plain(graph, values), strict=True):
        assert min(psnr(a, b) for a, b in zip(found["latent"], wanted["latent"], strict=True)) > 60
