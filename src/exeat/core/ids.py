"""Opaque identifiers: one NewType per thing, so that they cannot be swapped."""

from typing import NewType

AgentId = NewType("AgentId", str)
"""A registered agent, e.g. ``invoice-bot``: ``[a-z0-9][a-z0-9._-]{0,62}``."""

PersonId = NewType("PersonId", str)
"""A person, e.g. ``ada``: same grammar as AgentId.  Never a name or an e-mail address (EVD-7)."""

ServerId = NewType("ServerId", str)
"""An upstream MCP server, e.g. ``git``: ``[a-z0-9][a-z0-9-]{0,30}``; it is a path segment and a tool
prefix (``git__git_log`` on the aggregate endpoint), so it holds no underscore and no dot."""

ActionId = NewType("ActionId", str)
"""What Cedar calls the action: ``server/tool`` for a tool, else the MCP method (``prompts/get``)."""

Digest = NewType("Digest", str)
"""Lower-case hexadecimal SHA-256."""
