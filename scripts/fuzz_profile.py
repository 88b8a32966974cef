"""A pytest plugin for `make fuzz`: property tests run many more examples, with no time limit each."""

from hypothesis import settings

settings.register_profile("fuzz", max_examples=20_000, deadline=None)
settings.load_profile("fuzz")
