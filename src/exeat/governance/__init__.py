"""Verbs that span domains: the three answers about an agent."""
