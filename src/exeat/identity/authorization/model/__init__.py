"""What the authorization server keeps: frozen values."""
