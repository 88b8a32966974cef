"""The key with which this home's gateways sign permits (ID-11)."""

import os
from pathlib import Path

from exeat.core.errors import Invalid
from exeat.evidence.keys import create_master, load_master
from exeat.permit.token import Signer


def permit_signer(home: Path) -> Signer:
    """The key in ``keys/permit.key``, 0600: 32 bytes in hexadecimal, made at the first need.  Raises
    Invalid if others may read it."""
    path = home / "keys" / "permit.key"
    if not path.exists():
        try:
            return Signer(create_master(path, os.urandom))
        except Invalid:  # another process was faster
            pass
    return Signer(load_master(path))
