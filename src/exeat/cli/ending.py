"""What a command opened and `main` closes when it has ended, well or not."""

from contextlib import ExitStack
from typing import Final

AT_END: Final = ExitStack()
