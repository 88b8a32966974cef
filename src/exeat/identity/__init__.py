"""Authentication of agent, user and workload: credential in, Caller out."""
