"""Every table and all SQL; one file per domain; SQLite and PostgreSQL."""
