"""What a configured server becomes behind the gateway.  No secret passes into the registry: the vault
takes those that stand in the file (ID-10), and which others are needed is told."""

import base64
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from exeat.core.errors import Invalid
from exeat.core.facts import ServerSpec, Transport
from exeat.core.ids import ServerId
from exeat.governance.inventory.clients import Scope
from exeat.governance.inventory.entries import Entry, Reach
from exeat.governance.inventory.hardcoded import (
    fingerprint,
    is_reference,
    names_a_secret,
    references_in,
    secrets_of,
)
from exeat.governance.inventory.survey import target_url
from exeat.identity.vault.model import header_value, variable_value

SECRET_NAME_MAX_CHARS: Final = 60
CONTAINERS: Final = frozenset({"docker", "podman", "nerdctl"})
_FILLED_IN: Final = re.compile(r"\$\{[^}]*\}")
_SCHEME_AND_REFERENCE: Final = re.compile(r"([A-Za-z]+) +(\$\S+)")
_ENV_OPTION: Final = re.compile(r"(?:--env=|-e)([A-Za-z_]\w*)=.*", re.S)
_OF_THE_PROTOCOL: Final = frozenset(
    {"accept", "content-type", "mcp-protocol-version", "mcp-session-id", "user-agent"}
)


class CannotAdopt(Invalid):
    """The server stays as it is; the message says why, the remedy what would help."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One that the gateway's environment needs.  ``holds``: what, in words."""

    name: str
    holds: str


@dataclass(frozen=True, slots=True)
class Given:
    """A secret of one server, by its name in the vault.  ``value`` empty: it is not in the file, and a
    person sets it.  ``holds``: what, without telling it."""

    name: str
    holds: str
    value: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Adopted:
    spec: ServerSpec
    variables: tuple[Variable, ...] = ()
    secrets: tuple[Given, ...] = ()


@dataclass(frozen=True, slots=True)
class Around:
    """``home``: the user's folder.  ``names_in``: the variables that a file sets; raises CannotAdopt."""

    home: str
    names_in: Callable[[str], tuple[str, ...]]


def adopted(entry: Entry, server: ServerId, around: Around) -> Adopted:
    """Raises CannotAdopt, Invalid.  Nothing of what is returned holds a secret, but ``Given.value``."""
    _check(entry)
    entry = _through_remote(entry)
    return _http(entry, server) if entry.reach is Reach.HTTP else _stdio(entry, server, around)


def _check(entry: Entry) -> None:
    if entry.problem:
        raise CannotAdopt(f"{entry.client.title} could not use it either: {entry.problem}")
    if entry.scope is Scope.MANAGED:
        raise CannotAdopt("an administrator set it", remedy="Ask whoever manages this machine.")
    if entry.header_command:
        raise CannotAdopt(
            "a command of the client makes its headers",
            remedy="Register it with `exeat server add --url … --header-from …`.",
        )
    if entry.reach is Reach.SSE:
        raise CannotAdopt(
            "it speaks the HTTP+SSE transport of 2024-11-05",
            remedy="Use the server's streamable HTTP address; many have one that ends in /mcp.",
        )


def _through_remote(entry: Entry) -> Entry:
    """`npx mcp-remote URL --header …` is an HTTP server with headers; without headers it signs in by
    itself and stays a command."""
    if entry.url or not any(w.partition("@")[0] == "mcp-remote" for w in entry.command[:3]):
        return entry
    words = entry.command
    given = [words[n + 1] for n, word in enumerate(words[:-1]) if word == "--header"]
    if not given or "sse-only" in words:
        return entry
    headers = {}
    for each in given:
        name, _, value = each.partition(":")
        headers[name.strip()] = _filled(value.strip(), entry.env)
    return replace(entry, reach=Reach.HTTP, url=target_url(entry), command=(), headers=headers)


def _filled(value: str, env: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: env.get(found[1], found[0]), value)


def _http(entry: Entry, server: ServerId) -> Adopted:
    if any(s.where.startswith(("url, query", "url, path")) for s in secrets_of(entry)):
        raise CannotAdopt(
            "its address holds a secret, and addresses are kept in the open",
            remedy="Use a header instead if the server takes one, and adopt it then.",
        )
    kept = _Kept()
    try:
        parts = urlsplit(entry.url)
    except ValueError:
        raise CannotAdopt("its address is none") from None
    if "@" in parts.netloc:
        user, _, host = parts.netloc.rpartition("@")
        known = base64.b64encode(unquote(user).encode()).decode()
        kept.header("Authorization", f"Basic {known}", "the user and password of its old address")
        parts = parts._replace(netloc=host)
    for name, value in entry.headers.items():
        if value and name.lower() not in _OF_THE_PROTOCOL:
            kept.header(name, value, f"its header {name}")
    if entry.bearer_variable:
        kept.headers["Authorization"] = (
            f"Bearer {{{kept.unknown('authorization', f'the value of {entry.bearer_variable}')}}}"
        )
    url = urlunsplit(parts)
    _refuse_filled_in(entry, url)
    spec = ServerSpec(
        server,
        Transport.HTTP,
        url=url,
        headers_from=dict(entry.header_variables),
        headers_secret=kept.headers,
    )
    variables = tuple(Variable(name, "as before") for name in entry.header_variables.values())
    return Adopted(spec, variables, tuple(kept.secrets))


@dataclass(slots=True)
class _Kept:
    """The one place that says how a server's secrets are kept."""

    headers: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    secrets: list[Given] = field(default_factory=list)

    def header(self, name: str, value: str, of: str) -> None:
        if not references_in(value):
            header_value(_secret_name(name), value.encode("utf-8", "surrogatepass"))
            self.headers[name] = self.known(name, value, of)
            return
        scheme = _SCHEME_AND_REFERENCE.fullmatch(value)
        secret = self.unknown(name, _what_reference(value if not scheme else scheme[2], of))
        self.headers[name] = f"{scheme[1]} {{{secret}}}" if scheme else secret

    def variable(self, name: str, value: str) -> None:
        variable_value(_secret_name(name), value.encode("utf-8", "surrogatepass"))
        self.variables[name] = self.known(name, value, f"its {name}")

    def known(self, name: str, value: str, of: str) -> str:
        return self._given(name, f"{of} ({fingerprint(value)})", value)

    def unknown(self, name: str, holds: str) -> str:
        return self._given(name, holds, "")

    def _given(self, name: str, holds: str, value: str) -> str:
        taken = {each.name for each in self.secrets}
        base = fresh = _secret_name(name)
        while fresh in taken:
            fresh = f"{base}-{len(taken) + 1}"
        self.secrets.append(Given(fresh, holds, value))
        return fresh


def _stdio(entry: Entry, server: ServerId, around: Around) -> Adopted:
    command, moved = _without_values(entry.command)
    command = tuple(_resolved(word, entry, around) for word in command)
    bare = replace(entry, command=command, env={}, headers={}, sign_in={})
    for secret in secrets_of(bare):
        raise CannotAdopt(
            f"it takes a secret as an argument ({secret.where}), where every process list shows it",
            remedy="Give it by a variable if the server takes one, and adopt it then.",
        )
    _refuse_filled_in(entry, *command)
    kept = _Kept()
    plain, variables = _environment(entry, kept)
    for name, value in moved.items():
        kept.variable(name, value)
    variables += [Variable(name, "as before") for name in entry.env_from]
    if entry.env_file:
        file = _resolved(entry.env_file, entry, around)
        told = {*plain, *kept.variables, *(variable.name for variable in variables)}
        variables += [
            Variable(name, f"its value in {file}")
            for name in around.names_in(_absolute(file, entry))
            if name not in told
        ]
    cwd = _resolved(entry.cwd, entry, around)
    spec = ServerSpec(
        server,
        Transport.STDIO,
        command=command,
        env=plain,
        env_from=tuple(dict.fromkeys(variable.name for variable in variables)),
        cwd=_absolute(cwd, entry) if cwd or entry.project else "",
        env_secret=kept.variables,
    )
    return Adopted(spec, tuple(variables), tuple(kept.secrets))


def _environment(entry: Entry, kept: _Kept) -> tuple[dict[str, str], list[Variable]]:
    """Plain values stay in the open, secrets go to the vault, what came from the client's own
    environment comes from the gateway's."""
    plain: dict[str, str] = {}
    variables: list[Variable] = []
    hidden = {s.where for s in secrets_of(entry)}
    for name, value in entry.env.items():
        if references_in(value):
            variables.append(Variable(name, _what_reference(value, f"its {name}")))
        elif names_a_secret(name) or any(w.startswith(f"env {name}") for w in hidden):
            if value:
                kept.variable(name, value)
        else:
            plain[name] = value
    return plain, variables


def _what_reference(value: str, of: str) -> str:
    shown = f"`{' '.join(references_in(value))}`"
    return f"what {shown} stood for" if is_reference(value) else f"{of}, with {shown} filled in"


def _secret_name(name: str) -> str:
    """A name in the vault, made of a header's or a variable's."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("._-")
    return plain[:SECRET_NAME_MAX_CHARS] or "secret"


def _without_values(command: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """`docker run -e NAME=value` is `-e NAME` with NAME in its environment: no value in arguments."""
    if not command or posixpath.basename(command[0]) not in CONTAINERS:
        return command, {}
    words, moved = [], {}
    for number, word in enumerate(command):
        option = _ENV_OPTION.fullmatch(word)
        name, equals, value = word.partition("=")
        if number and command[number - 1] in ("-e", "--env") and equals and names_a_secret(name):
            moved[name] = value
            word = name
        elif option is not None and names_a_secret(option[1]):
            moved[option[1]] = word.partition(f"{option[1]}=")[2]
            word = f"--env={option[1]}"
        words.append(word)
    return tuple(words), moved


def _resolved(text: str, entry: Entry, around: Around) -> str:
    """What does not depend on the client's session, filled in."""
    known = {"${userHome}": around.home, "${HOME}": around.home, "${env:HOME}": around.home}
    if entry.project:
        known["${workspaceFolder}"] = entry.project
    for name, value in known.items():
        text = text.replace(name, value)
    return f"{around.home}{text[1:]}" if text.startswith("~/") else text


def _absolute(path: str, entry: Entry) -> str:
    if path and not posixpath.isabs(path) and not entry.project:
        raise CannotAdopt(
            f"it names a place ({path}) that depends on where {entry.client.title} is started",
            remedy="Write the whole path in its file, and adopt it then.",
        )
    return posixpath.normpath(posixpath.join(entry.project, path)) if path else entry.project


def _refuse_filled_in(entry: Entry, *texts: str) -> None:
    for text in texts:
        if _FILLED_IN.search(text):
            raise CannotAdopt(
                f"it uses {' '.join(references_in(text))}, which only {entry.client.title} fills in",
                remedy="Write the value in its place, and adopt it then.",
            )
