"""An OAuth client on a person's own machine (RFC 8252): `exeat bridge` without a key (GW-6, ID-7)."""
