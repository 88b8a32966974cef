"""What MCP clients have configured: their formats, the secrets in them, changes as text (REG-5)."""
