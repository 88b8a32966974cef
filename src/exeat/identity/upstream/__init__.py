"""The gateway as an OAuth client of upstream servers: its pure rules (ID-9)."""
