"""The sealed vault (ID-10): secrets and tokens for servers, at rest under envelope encryption."""
