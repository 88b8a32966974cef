"""What the HTTP edge asks of its neighbours: limits, and who answers a request."""

from typing import Protocol


class Exchange(Protocol):
    """What answers one request; told when the client is gone or slow."""

    def client_gone(self) -> None: ...

    def client_slow(self) -> None: ...

    def client_ready(self) -> None: ...


class EdgeLimits(Protocol):
    """Times in seconds, sizes in bytes."""

    @property
    def head_time_max_s(self) -> float: ...
    @property
    def body_time_max_s(self) -> float: ...
    @property
    def idle_time_max_s(self) -> float: ...
    @property
    def request_body_max_bytes(self) -> int: ...
    @property
    def connections_max(self) -> int: ...
