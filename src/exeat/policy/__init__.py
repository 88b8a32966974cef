"""The policy decision point (PDP): Cedar, schemas from tools, slices, cases."""
