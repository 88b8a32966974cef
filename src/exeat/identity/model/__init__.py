"""Tokens and issuers: frozen types."""
