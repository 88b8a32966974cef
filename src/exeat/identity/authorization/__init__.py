"""The embedded authorization server (ID-7): who may have which token, by OAuth 2.1."""
