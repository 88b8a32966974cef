"""Files of MCP clients on this machine: found, read, changed and put back (REG-5)."""
