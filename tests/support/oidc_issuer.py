"""An OpenID Connect issuer: a real HTTP server with keys of joserfc."""

import asyncio
import json
import time
from typing import Any

import pytest
from aiohttp import web

from p2pmodel.core.network.rights import RequestCredentials

joserfc = pytest.importorskip("joserfc", reason="the extra oidc is not installed")
from joserfc import jwt  # noqa: E402
from joserfc.jwk import ECKey, KeySet, RSAKey  # noqa: E402


class Issuer:
    """An issuer with one signing key, which it can exchange."""

    def __init__(self) -> None:
        self.url, self.asked, self.fails = "", 0, False
        self.more_keys: list[dict[str, str]] = []
        self.pauses, self.answers = False, asyncio.Event()
        self.answers.set()
        self.key: Any = None
        self.rotate()

    def rotate(self, kind: type = ECKey) -> None:
        self.key = (
            RSAKey.generate_key(2048, auto_kid=True) if kind is RSAKey else ECKey.generate_key("P-256", auto_kid=True)
        )

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._document)
        app.router.add_get("/keys", self._keys)
        return app

    async def _document(self, _request: web.Request) -> web.Response:
        self.asked += 1
        await self.answers.wait()
        if self.fails:
            raise web.HTTPServiceUnavailable
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        keys = {"keys": [*self.more_keys, *KeySet([self.key]).as_dict(private=False)["keys"]]}
        if not self.pauses:
            answer = web.json_response(keys)
            answer.enable_compression()  # if the client accepts it
            return answer
        body = json.dumps(keys).encode()
        parts = web.StreamResponse()
        await parts.prepare(request)
        for part in (body[:1000], body[1000:]):
            await parts.write(part)
            await asyncio.sleep(0.05)
        return parts

    def token(self, key: Any = None, alg: str = "ES256", **claims: Any) -> RequestCredentials:
        signing = key or self.key
        plain = {"iss": self.url, "aud": "p2pmodel", "sub": "anna", "exp": int(time.time()) + 600, "groups": ["ml"]}
        plain = {name: value for name, value in (plain | claims).items() if value is not None}
        header = {"alg": alg, "kid": signing.kid} if signing.kid else {"alg": alg}
        return RequestCredentials(f"Bearer {jwt.encode(header, plain, signing, algorithms=[alg])}")
