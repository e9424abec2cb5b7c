"""A stranger's package with backends that go wrong; only workers import it."""
