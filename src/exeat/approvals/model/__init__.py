"""What approvals are made of: holds, answers, bounds, grants.  Frozen; a change is a new value."""
