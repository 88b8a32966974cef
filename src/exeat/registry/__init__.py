"""Agents, people, servers, tools and their pins; the lifecycle machine."""
