"""Requests, quorum, separation of duties; issues grants (APP-1 … APP-12)."""
