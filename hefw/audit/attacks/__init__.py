"""Attacks, one a file, each small and with its reference."""
