"""What a call takes from budgets (APP-8).  Pure."""

from collections.abc import Mapping
from typing import Any

from exeat.core.controls import Charge, Controls
from exeat.core.request import AccessRequest


def charges(
    controls: Controls, request: AccessRequest, arguments: Mapping[str, Any]
) -> tuple[Charge, ...]:
    return ()
