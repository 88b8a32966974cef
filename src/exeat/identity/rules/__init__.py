"""What a token must hold, and whom it stands for: pure functions."""
