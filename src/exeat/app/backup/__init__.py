"""A home in one file, and back: ``make.py``, ``restore.py``; ``manifest.py`` says what is in it."""
