"""Secrets of servers as people manage them: who may, and what a server still needs (ID-10)."""

from typing import Protocol

from exeat.core.errors import Conflict
from exeat.core.facts import ServerSpec, secret_of
from exeat.core.ids import AgentId, ServerId
from exeat.core.secret import SecretId, places
from exeat.identity.vault.model import (
    Rotation,
    Secret,
    check_id,
    check_value,
    header_value,
    variable_value,
)
from exeat.identity.vault.service import Vault
from exeat.identity.vault.store import VaultChange
from exeat.registry.model.act import Act
from exeat.registry.model.server import Server
from exeat.registry.rules.authority import require_admin
from exeat.registry.store import RegistryRead


class SecretsChange(VaultChange, Protocol):
    """Vault and registry in one transaction."""

    @property
    def registry(self) -> RegistryRead: ...


def set_secret(vault: Vault[SecretsChange], id: SecretId, value: bytes, act: Act) -> Secret:
    """By an admin, for a server and an agent that are registered."""
    with vault.store.change() as tx:
        return set_secret_in(vault, tx, id, value, act)


def set_secret_in(
    vault: Vault[SecretsChange], tx: SecretsChange, id: SecretId, value: bytes, act: Act
) -> Secret:
    """As part of a larger change."""
    _require(tx, "set secrets", act)
    _not_own(id)
    if id.upstream:
        tx.registry.server(ServerId(id.upstream))
    if id.agent:
        tx.registry.agent(AgentId(id.agent))
    for server in used_by(id, tx.registry.servers()):
        _fits(server.spec, id.name, value)
    return vault.put_in(tx, id, value, act)


def remove_secret(vault: Vault[SecretsChange], id: SecretId, act: Act) -> None:
    """Conflict while a server names it and nothing else would stand in for it."""
    with vault.store.change() as tx:
        _require(tx, "remove secrets", act)
        _not_own(id)
        left = {each.id for each in tx.secrets()} - {id}
        for server in used_by(id, tx.registry.servers()):
            if not id.agent and not any(at in left for at in places("", server.id, id.name)):
                raise Conflict(
                    f"Server {server.id} needs secret {id.name}.",
                    remedy=f"Change or remove server {server.id} first, or set another value.",
                )
        vault.remove_in(tx, id, act)


def rotate_key(vault: Vault[SecretsChange], act: Act) -> Rotation:
    return vault.rotate(act, lambda tx: _require(tx, "rotate the vault's key", act))


def used_by(id: SecretId, servers: tuple[Server, ...]) -> tuple[Server, ...]:
    """Servers that name this secret and would be given it."""
    return tuple(
        each for each in servers if id.name in each.spec.secrets and id.upstream in ("", each.id)
    )


def _fits(spec: ServerSpec, name: str, value: bytes) -> None:
    """Raises Invalid if the server could not be given this value where it names the secret."""
    check_value(name, value)
    if any(secret_of(template)[1] == name for template in spec.headers_secret.values()):
        header_value(name, value)
    if name in spec.env_secret.values():
        variable_value(name, value)


def _require(tx: SecretsChange, verb: str, act: Act) -> None:
    require_admin(tx.registry.person(act.actor), verb)


def _not_own(id: SecretId) -> None:
    check_id(id)
    if id.own:
        raise Conflict(f"{id.name} is kept by exeat itself.", remedy="Choose a name without ':'.")
