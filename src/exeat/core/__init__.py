"""Nouns that two domains share.  Standard library only; no I/O, no clock, no randomness."""
