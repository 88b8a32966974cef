"""The authorization server's verbs; each change and its event in one transaction."""
