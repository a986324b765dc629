"""Bearer tokens of an OpenID Connect issuer: signature, issuer, audience, times and algorithm are checked (joserfc).

The issuer's keys are fetched from its discovery document, kept for a while, and fetched again for an unknown key id, at
most every `RETRY_AFTER` seconds. Without keys no token is accepted.
"""

import asyncio
import time
import warnings
from collections.abc import Callable
from typing import Any

import aiohttp

from p2pmodel.config.sections.trust import OidcSettings
from p2pmodel.core.content.names import printable
from p2pmodel.core.network.proxies import Proxies
from p2pmodel.core.network.rights import RequestCredentials
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import InvalidInput, Unavailable, UnknownCredential
from p2pmodel.http_pool import read_bounded, session, through
from p2pmodel.tls import context_with
from p2pmodel.trust.access.policy import Subject

try:
    from joserfc import jwt
    from joserfc.errors import InvalidKeyIdError, JoseError, SecurityWarning
    from joserfc.jwk import KeySet
except ImportError:
    raise InvalidInput(
        "oidc.issuer is set, and joserfc is not installed", hint="pip install 'p2pmodel[oidc]'"
    ) from None

# The settings decide which algorithms count.
warnings.filterwarnings("ignore", "EdDSA is deprecated", SecurityWarning)

ANSWER_WITHIN = 5.0
RETRY_AFTER = 10.0
"""Seconds between two fetches of keys for tokens with unknown keys."""
ASK_AGAIN_AFTER = 2.0
"""Seconds after a failure in which the issuer is not asked again: what waited for the answer fails, too."""
MAX_ANSWER = 1 << 20
MAX_TOKEN = 8192
LEEWAY = 30
"""Seconds by which clocks may differ."""
_PLAIN = {"Accept": "application/json", "Accept-Encoding": "identity"}
"""The session decompresses nothing."""
_HINT = "get a new token from the issuer"


class OidcIssuer:
    """Clients by their tokens of one issuer."""

    def __init__(
        self, settings: OidcSettings, proxies: Proxies, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._proxies = proxies
        self._clock = clock
        self._keys: KeySet | None = None
        self._fetched = float("-inf")
        self._failed = float("-inf")
        self._failure: Unavailable | None = None
        self._turn = asyncio.Lock()
        self._claims = jwt.JWTClaimsRegistry(
            leeway=LEEWAY,
            iss={"essential": True, "value": str(settings.issuer)},
            aud={"essential": True, "value": str(settings.audience)},
            exp={"essential": True},
        )

    def recognises(self, presented: RequestCredentials) -> bool:
        """Whether it is a signed JWT: three parts."""
        token = presented.bearer
        return token.count(".") == 2 and len(token) <= MAX_TOKEN and token.startswith("eyJ")

    async def subject(self, presented: RequestCredentials) -> Subject:
        """As `Directory`."""
        claims = await self._verified(presented.bearer)
        name, groups = claims.get(self._settings.subject_claim), claims.get(self._settings.groups_claim, [])
        if not isinstance(name, str) or not name or not name.isprintable():
            raise UnknownCredential(f"the token has no claim '{self._settings.subject_claim}'", hint=_HINT)
        listed = groups if isinstance(groups, list) else [groups]
        return Subject("oidc", name, frozenset(each for each in listed if isinstance(each, str) and each))

    async def close(self) -> None:
        """As `Directory`: there is none, each fetch of keys has its own."""

    async def _verified(self, token: str) -> dict[str, Any]:
        try:
            return self._decoded(token, await self._usable_keys())
        except _UnknownKey:
            pass
        try:
            return self._decoded(token, await self._usable_keys(newer=True))
        except _UnknownKey:
            raise UnknownCredential(
                "the token is signed with a key that the issuer does not have", hint=_HINT
            ) from None

    def _decoded(self, token: str, keys: KeySet) -> dict[str, Any]:
        try:
            decoded = jwt.decode(token, keys, algorithms=list(self._settings.algorithms))
            self._claims.validate(decoded.claims)
        except InvalidKeyIdError:
            raise _UnknownKey from None
        except JoseError as error:
            raise UnknownCredential(f"the token is not valid: {_reason(error)}", hint=_HINT) from None
        except (ValueError, TypeError, KeyError):
            raise UnknownCredential("the token is malformed", hint=_HINT) from None
        return dict(decoded.claims)

    async def _usable_keys(self, *, newer: bool = False) -> KeySet:
        """The issuer's keys; `newer`: not those of a moment ago. Raises Unavailable."""
        keys = self._fresh_keys(newer)
        if keys is not None:
            return keys  # also while other clients wait for newer ones
        async with self._turn:
            keys = self._fresh_keys(newer)
            if keys is None:
                if self._failure is not None and self._clock() - self._failed < ASK_AGAIN_AFTER:
                    raise Unavailable(self._failure.what, hint=self._failure.hint)
                self._keys = keys = await self._asked()
                self._fetched = self._clock()
            return keys

    def _fresh_keys(self, newer: bool) -> KeySet | None:
        age = self._clock() - self._fetched
        return self._keys if age < (RETRY_AFTER if newer else self._settings.keys_ttl) else None

    async def _asked(self) -> KeySet:
        """The keys as the issuer lists them now. A failure is remembered."""
        try:
            keys = await self._fetch()
        except Unavailable as error:
            self._failure, self._failed = error, self._clock()
            raise
        self._failure = None
        return keys

    async def _fetch(self) -> KeySet:
        issuer = str(self._settings.issuer)
        document = await self._json(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != issuer:
            raise Unavailable(f"{issuer} says that it is another issuer", hint="correct oidc.issuer")
        where = document.get("jwks_uri")
        if not isinstance(where, str) or not where.startswith(("https://", "http://")):
            raise Unavailable(f"{issuer} names no keys")
        if issuer.startswith("https://") and not where.startswith("https://"):
            raise Unavailable(f"{issuer} names keys that are not served over https")
        try:
            return KeySet.import_key_set(await self._json(where))  # type: ignore[arg-type]  # it is checked there
        except (JoseError, ValueError, TypeError, KeyError):
            raise Unavailable(f"the keys of {issuer} cannot be used") from None

    async def _json(self, where: str) -> dict[str, Any]:
        issuer = self._settings.issuer
        timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN)
        proxy, ca_file = self._proxies.of(where), self._settings.ca_file
        tls = {"ssl": await asyncio.to_thread(context_with, ca_file)} if ca_file is not None else {}
        try:
            async with (
                session(None, timeout=timeout) as http,
                http.get(where, allow_redirects=False, **through(proxy, where, _PLAIN), **tls) as answer,  # type: ignore[arg-type]
            ):
                body = await read_bounded(answer, MAX_ANSWER) if answer.status == 200 else None
                found = parse_json(body) if body is not None else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unavailable(f"the OIDC issuer {issuer} does not answer ({type(error).__name__})") from None
        if not isinstance(found, dict):
            raise Unavailable(f"the OIDC issuer {issuer} does not answer as one")
        return found


class _UnknownKey(Exception):
    """No key of the issuer has the key id of a token."""


def _reason(error: JoseError) -> str:
    return printable(str(getattr(error, "description", "") or getattr(error, "error", "") or "it cannot be read"), 80)
