"""The registry's nouns: people, agents, servers, tools, keys, policy versions.  Frozen values.

A change is a method that returns the new value *and* its event (REG-3), so that none is forgotten.
Times are integer nanoseconds since the Unix epoch (UTC); who and when come in with an ``Act``.
"""
