"""The verbs of approvals.  All block: call them in a thread."""
