"""Settings, wiring, serve: the one place where adapters meet services."""
