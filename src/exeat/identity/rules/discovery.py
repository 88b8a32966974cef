"""Where metadata of authorization servers and of protected resources stands (RFC 8414, RFC 9728)."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

SERVER_METADATA = "/.well-known/oauth-authorization-server"
OPENID_METADATA = "/.well-known/openid-configuration"
RESOURCE_METADATA = "/.well-known/oauth-protected-resource"


def server_metadata_urls(issuer: str) -> tuple[str, ...]:
    """In the order of the MCP authorization specification: RFC 8414 with the path inserted, OpenID
    Connect with the path inserted, OpenID Connect with the path in front."""
    origin, path = _split(issuer)
    if not path:
        return (origin + SERVER_METADATA, origin + OPENID_METADATA)
    return (
        origin + SERVER_METADATA + path,
        origin + OPENID_METADATA + path,
        origin + path + OPENID_METADATA,
    )


def resource_metadata_urls(resource: str) -> tuple[str, ...]:
    """RFC 9728 section 3.1 with the path inserted, then the root of the origin."""
    origin, path = _split(resource)
    urls = (origin + RESOURCE_METADATA + path, origin + RESOURCE_METADATA)
    return urls if path else urls[:1]


def _split(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")


def text(document: Mapping[str, Any], name: str) -> str:
    """A member that must be text to count; else empty."""
    value = document.get(name)
    return value if isinstance(value, str) else ""


def texts(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A member that must be a list of texts to count; else empty."""
    value = document.get(name)
    if not isinstance(value, list):
        return ()
    return tuple(item for item in value if isinstance(item, str))
