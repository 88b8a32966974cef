"""Pure rules of approvals: who may say what, what suffices, what fits a grant."""
