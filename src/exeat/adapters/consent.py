"""ID-9: a person gives the gateway access to an upstream: from the consent page to the callback.

The page is opened by a link that an agent carried, so whoever opens it must be signed in as the very
person meant (URL elicitation, 2026-07-28, Phishing): a link that is passed on gives nothing.  The
answer is taken once, from the same person, for a state that was never seen outside of their browser.
"""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from exeat.adapters.consent_links import Wish
from exeat.adapters.oauth_client import NAME
from exeat.adapters.upstream_credentials import Place, UpstreamCredentials
from exeat.core.facts import ServerSpec
from exeat.core.upstream_auth import AuthMode, CredentialFailed
from exeat.identity.model.client import Client
from exeat.identity.upstream.consent import ConsentRefused, ConsentShown
from exeat.identity.upstream.rules import Asking, authorization_url, check_response_issuer

WAITING_MAX: Final = 1000
WAITING_S: Final = 600
_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Waiting:
    wish: Wish
    place: Place
    client: Client
    asking: Asking = field(repr=False)
    until: int


class Consent:
    """``spec``: the server as registered now, or None.  ``person`` is always who the browser's session
    says, never what the request says.  Of one process: the control listener's."""

    def __init__(
        self,
        credentials: UpstreamCredentials,
        spec: Callable[[str], ServerSpec | None],
        clock: Callable[[], int],
    ) -> None:
        self._credentials, self._spec, self._clock = credentials, spec, clock
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()

    async def show(self, link: str, person: str) -> ConsentShown:
        """Raises ConsentRefused, CredentialFailed."""
        wish, spec = self._opened(link, person)
        place = await self._place(wish, spec)
        parts = urlsplit(place.server.authorization_endpoint)
        agent, origin = wish.whose.partition("/")[0], f"{parts.scheme}://{parts.netloc}"
        return ConsentShown(wish.server, agent, origin, self._credentials.asking(wish, place))

    async def begin(self, link: str, person: str) -> str:
        """The URL of the authorization server that the browser is sent to.  Raises ConsentRefused,
        CredentialFailed."""
        wish, spec = self._opened(link, person)
        place = await self._place(wish, spec)
        oauth = self._credentials.client_for(spec.url)
        client = await self._credentials.client(spec, oauth, place.server, register=True)
        if client is None:
            raise CredentialFailed(f"{place.server.issuer} does not know this gateway")
        asking = Asking(
            client.client_id,
            self._credentials.redirect_uri,
            secrets.token_urlsafe(32),
            secrets.token_urlsafe(48),
            place.resource.uri,
            self._credentials.asking(wish, place),
        )
        url = authorization_url(place.server, asking)
        until = self._clock() + WAITING_S * _S
        self._waiting[asking.state] = _Waiting(wish, place, client, asking, until)
        while len(self._waiting) > WAITING_MAX:
            self._waiting.popitem(last=False)
        return url

    async def finish(self, answer: Mapping[str, str], person: str) -> str:
        """The authorization server's answer, as the browser brought it: the code is exchanged and the
        token kept.  Returns the server's name.  Raises ConsentRefused, CredentialFailed."""
        waiting = self._waiting.get(answer.get("state", ""))
        if waiting is None or self._clock() >= waiting.until:
            raise ConsentRefused("this answer belongs to no consent under way, or came too late")
        if not hmac.compare_digest(waiting.wish.person.encode(), person.encode()):
            raise ConsentRefused("this consent was begun by another person")
        del self._waiting[waiting.asking.state]  # once, whatever comes of it
        place, asking = waiting.place, waiting.asking
        check_response_issuer(answer.get("iss"), place.server)
        if "error" in answer:
            raise ConsentRefused(
                f"{place.server.issuer} gave no access to {waiting.wish.server}",
                remedy="call the tool again to be asked once more",
            )
        code = answer.get("code", "")
        if not code:
            raise ConsentRefused("the authorization server answered without a code")
        spec = self._spec(waiting.wish.server)
        if spec is None or spec.auth.mode is not AuthMode.AUTHORIZATION_CODE:
            raise ConsentRefused(f"server {waiting.wish.server} is not registered so any more")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": asking.redirect_uri,
            "code_verifier": asking.verifier,
            "resource": asking.resource,
        }
        oauth = self._credentials.client_for(spec.url)
        token = await oauth.token(place.server, waiting.client, form)
        await self._credentials.arrived(spec, waiting.wish, place, asking.scopes, token)
        return waiting.wish.server

    def document(self) -> dict[str, Any]:
        """Of ourselves, for authorization servers that take client ID metadata documents."""
        return {
            "client_id": self._credentials.document,
            "client_name": NAME,
            "redirect_uris": [self._credentials.redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }

    def _opened(self, link: str, person: str) -> tuple[Wish, ServerSpec]:
        wish = self._credentials.links.open(link)
        if wish is None:
            raise ConsentRefused(
                "this link is not valid, or no longer",
                remedy="call the tool again to be given a new one",
            )
        if not hmac.compare_digest(wish.person.encode(), person.encode()):
            raise ConsentRefused(
                "this link was made for another person",
                remedy="do not open links that others send you; sign in as yourself",
            )
        spec = self._spec(wish.server)
        if spec is None or spec.auth.mode is not AuthMode.AUTHORIZATION_CODE:
            raise ConsentRefused(f"server {wish.server} is not registered so any more")
        return wish, spec

    async def _place(self, wish: Wish, spec: ServerSpec) -> Place:
        oauth = self._credentials.client_for(spec.url)
        place = await self._credentials.place(spec, oauth, wish.metadata)
        oauth.check(place.server.authorization_endpoint)  # a browser follows it: no other scheme
        return place
