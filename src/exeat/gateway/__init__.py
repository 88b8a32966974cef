"""The policy enforcement point (PEP): edge, inbound ladder, pipeline, upstreams."""
