"""Whole pictures by the paper's own update, to stand beside hefw's in a comparison."""

from __future__ import annotations

import pytest

from hefw.bench.paper import draw
from hefw.config import Config
from hefw.core.errors import ConfigError
from hefw.report.sight import seen


@pytest.mark.secure
@pytest.mark.parametrize("way", ["full", "partial", "sparse"])
def test_a_published_way_draws_what_plaintext_does(way: str, one_thread: None) -> None:
    config = Config(model="digits", steps=2, labels="7", protocol="update-only")
    result = draw(config, f"published {way}", lambda told: None)
    record = result.record
    assert result.images.shape == (1, 1, 8, 8)
    assert record.psnr_db is None or record.psnr_db > 50  # by a scale of 26 bits
    assert record.evaluations == record.messages == len(result.trajectory) - 1
    assert record.params.security_bits == 128
    assert not record.simulated
    assert record.bytes.evaluation_keys == record.bytes.upload_per_step == 0  # one process: nothing is sent
    rows = {(row["item"], row["form"]): row["entries"] for row in seen(record)}
    sent = 64 * record.messages
    assert rows["noise prediction", "in plaintext"] == sent
    shown = rows.get(("latent x_t", "in plaintext"), 0)
    assert rows["latent x_t", "only as ciphertext"] + shown == sent
    assert (shown == 0) == (way == "full")
    assert record.ledger.server_plaintext_fraction == pytest.approx((sent + shown) / (2 * sent))
    stages = record.seconds
    assert stages.total > stages.encrypt + stages.evaluate + stages.decrypt > 0


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"published way 'half' is not known; allowed: full, partial, sparse"):
        draw(Config(), "published half", lambda told: None)
