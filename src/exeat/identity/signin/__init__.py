"""People and how they prove who they are (ID-8): one-time links, passkeys, sessions."""
