"""ID-9: what a registration must say of a server that the gateway signs in to."""

from typing import Any

import pytest
from requirements import requirement

from exeat.core.errors import Invalid
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import ServerId
from exeat.core.upstream_auth import UpstreamAuth, read_auth
from exeat.registry.model.server import check_spec
from exeat.storage.rows import _spec_text, to_spec

IS = {"issuer": "https://as.example", "client_id": "me"}


def spec(auth: UpstreamAuth, **rest: Any) -> ServerSpec:
    return ServerSpec(ServerId("s"), Transport.HTTP, url="https://m.example/mcp", auth=auth, **rest)


@requirement("ID-9")
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"mode": "authorization-code"},
        {"mode": "authorization-code", "scopes": "a b"},
        {"mode": "authorization-code", **IS, "secret": "drive"},
        {"mode": "client-credentials", **IS, "secret_from": "DRIVE_SECRET"},
        {"mode": "client-credentials", **IS, "key_file": "/etc/exeat/key.pem"},
        {"mode": "token-exchange", **IS, "subject_from": "WORKLOAD_TOKEN"},
        {"mode": "id-jag", **IS, "subject_from": "ID_TOKEN", "idp": "https://idp.example", "idp_client_id": "gw"},
    ],
)  # fmt: skip
def test_each_mode_is_kept_as_it_was_given(given: dict[str, str]) -> None:
    known = spec(read_auth(given))
    check_spec(known)
    assert to_spec("s", _spec_text(known)) == known


@requirement("ID-9")
@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"mode": "authorization-code", "client_id": "me"}, "one authorization server"),
        ({"mode": "authorization-code", "secret": "drive"}, "without its client_id"),
        ({"mode": "client-credentials", "issuer": "https://as.example"}, "needs client_id"),
        ({"mode": "client-credentials", "client_id": "me", "secret": "x"}, "one authorization server"),
        ({"mode": "client-credentials", **IS, "secret": "x", "secret_from": "Y"}, "more than one way"),
        ({"mode": "client-credentials", **IS, "secret_from": "not a name"}, "environment variable"),
        ({"mode": "token-exchange", **IS}, "needs subject_from"),
        ({"mode": "id-jag", **IS, "subject_from": "T"}, "needs idp"),
    ],
)  # fmt: skip
def test_a_registration_that_would_leak_or_fail_is_refused(
    given: dict[str, str], what: str
) -> None:
    with pytest.raises(Invalid, match=what):
        check_spec(spec(read_auth(given)))


@requirement("ID-9")
def test_one_way_to_sign_in_not_two() -> None:
    auth = read_auth({"mode": "authorization-code"})
    with pytest.raises(Invalid, match="fixed Authorization header"):
        check_spec(spec(auth, headers_from={"authorization": "TOKEN"}))
    stdio = ServerSpec(ServerId("s"), Transport.STDIO, command=("x",), auth=auth)
    with pytest.raises(Invalid, match="on stdio"):
        check_spec(stdio)
