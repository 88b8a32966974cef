"""Requests, quorum, separation of duties; issues grants.  Filled by a later issue."""
