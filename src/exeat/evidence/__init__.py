"""The ledger, its Merkle tree, checkpoints, verification and audit."""
