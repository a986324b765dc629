"""Tokens of an OpenID Connect issuer, a real HTTP server with keys of joserfc: what is accepted, and what is not."""

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from p2pmodel.config.sections.trust import OidcSettings
from p2pmodel.core.network.proxies import DIRECT
from p2pmodel.core.network.rights import RequestCredentials
from p2pmodel.errors import Unavailable, UnknownCredential
from p2pmodel.http.server import serving
from p2pmodel.trust.access.policy import Subject
from tests.support.eventually import eventually

joserfc = pytest.importorskip("joserfc", reason="the extra oidc is not installed")
from joserfc.jwk import ECKey, RSAKey  # noqa: E402

from p2pmodel.trust.access.oidc import ASK_AGAIN_AFTER, RETRY_AFTER, OidcIssuer  # noqa: E402
from tests.support.oidc_issuer import Issuer  # noqa: E402


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    found = Issuer()
    async with serving(found.app(), "127.0.0.1", 0, grace=0.1) as found.url:
        yield found


def directory(issuer: Issuer, clock: Clock | None = None, **more: Any) -> OidcIssuer:
    settings = OidcSettings.model_validate({"issuer": issuer.url, "audience": "p2pmodel", **more})
    return OidcIssuer(settings, DIRECT, clock=clock or Clock())


async def test_a_token_of_the_issuer_names_a_client_with_its_groups(issuer: Issuer) -> None:
    at = directory(issuer)
    presented = issuer.token()
    assert at.recognises(presented)
    assert await at.subject(presented) == Subject("oidc", "anna", frozenset({"ml"}))
    assert await at.subject(issuer.token(aud=["other", "p2pmodel"])) == Subject("oidc", "anna", frozenset({"ml"}))
    assert issuer.asked == 1, "the keys are kept"
    for other in (
        RequestCredentials("Bearer hf_secret"),
        RequestCredentials("Basic YTpi"),
        RequestCredentials("Bearer a.b.c"),
    ):
        assert not at.recognises(other)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://elsewhere.test"},
        {"iss": None},
        {"aud": "another service"},
        {"aud": None},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"nbf": 9_999_999_999},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
    ],
    ids=str,
)
async def test_claims_that_are_wrong_or_missing_are_refused(issuer: Issuer, claims: dict[str, Any]) -> None:
    presented = issuer.token(**claims)
    with pytest.raises(UnknownCredential) as refused:
        await directory(issuer).subject(presented)
    assert presented.bearer not in str(refused.value)


async def test_a_foreign_signature_is_refused(issuer: Issuer) -> None:
    at = directory(issuer)
    foreign = ECKey.generate_key("P-256", parameters={"kid": issuer.key.kid})
    with pytest.raises(UnknownCredential):
        await at.subject(issuer.token(foreign))
    whole = issuer.token().authorization
    with pytest.raises(UnknownCredential):
        await at.subject(RequestCredentials(whole[:-4] + ("AAAA" if whole[-4:] != "AAAA" else "BBBB")))


async def test_only_the_listed_algorithms_are_accepted(issuer: Issuer) -> None:
    with pytest.raises(UnknownCredential):
        await directory(issuer, algorithms=("RS256",)).subject(issuer.token())
    claims = issuer.token().bearer.split(".")[1]
    for algorithm in ("none", "HS256"):  # no signature, and the public key as a shared secret
        header = json.dumps({"alg": algorithm, "kid": issuer.key.kid}).encode()
        signed = f"{base64.urlsafe_b64encode(header).decode().rstrip('=')}.{claims}"
        mac = hmac.digest(issuer.key.as_pem(private=False), signed.encode(), "sha256") if algorithm != "none" else b""
        forged = RequestCredentials(f"Bearer {signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}")
        with pytest.raises(UnknownCredential):
            await directory(issuer).subject(forged)
    issuer.rotate(RSAKey)
    assert (await directory(issuer).subject(issuer.token(alg="RS256"))).name == "anna"


async def test_new_keys_are_fetched_for_a_token_with_an_unknown_key_but_not_for_each(issuer: Issuer) -> None:
    clock = Clock()
    at = directory(issuer, clock)
    await at.subject(issuer.token())
    old = issuer.token()
    issuer.rotate()
    new = issuer.token()
    with pytest.raises(UnknownCredential):
        await at.subject(new)
    assert issuer.asked == 1, "the keys are of a moment ago"
    clock.now += RETRY_AFTER
    assert (await at.subject(new)).name == "anna"
    assert issuer.asked == 2
    with pytest.raises(UnknownCredential):
        await at.subject(old)
    assert issuer.asked == 2


async def test_without_the_issuers_keys_no_token_is_accepted(issuer: Issuer) -> None:
    issuer.fails = True
    with pytest.raises(Unavailable, match="does not answer"):
        await directory(issuer).subject(issuer.token())
    issuer.fails = False
    settings = OidcSettings(issuer="http://127.0.0.1:9/realm", audience="p2pmodel")
    with pytest.raises(Unavailable):
        await OidcIssuer(settings, DIRECT).subject(issuer.token())
    real, issuer.url = issuer.url, "https://another.test"
    at = OidcIssuer(OidcSettings(issuer=real, audience="p2pmodel"), DIRECT)
    with pytest.raises(Unavailable, match="another issuer"):
        await at.subject(issuer.token())


async def test_keys_may_be_many_and_come_in_parts(issuer: Issuer) -> None:
    """Issuers list certificates, keys for encryption and keys of new kinds beside those for signatures."""
    issuer.pauses = True
    issuer.more_keys = [
        {"kty": "AKP", "alg": "ML-DSA-44", "kid": f"new-{number}", "pub": "A" * 1500} for number in range(9)
    ]
    assert (await directory(issuer).subject(issuer.token())).name == "anna"


async def test_an_issuer_that_fails_is_asked_once_for_all_that_wait_and_again_after_a_moment(issuer: Issuer) -> None:
    clock = Clock()
    at = directory(issuer, clock)
    issuer.fails = True
    issuer.answers.clear()
    waiting = [asyncio.create_task(at.subject(issuer.token())) for _ in range(20)]
    await eventually(lambda: issuer.asked == 1, what="the issuer is asked")
    issuer.answers.set()
    assert all(isinstance(each, Unavailable) for each in await asyncio.gather(*waiting, return_exceptions=True))
    assert issuer.asked == 1
    issuer.fails = False
    with pytest.raises(Unavailable, match="does not answer"):
        await at.subject(issuer.token())
    clock.now += ASK_AGAIN_AFTER
    assert (await at.subject(issuer.token())).name == "anna"
    assert issuer.asked == 2


async def test_a_token_with_a_known_key_does_not_wait_for_keys_of_another(issuer: Issuer) -> None:
    clock = Clock()
    at = directory(issuer, clock)
    known = issuer.token()
    await at.subject(known)
    issuer.answers.clear()
    clock.now += RETRY_AFTER
    unknown = asyncio.create_task(at.subject(issuer.token(ECKey.generate_key("P-256", auto_kid=True))))
    await eventually(lambda: issuer.asked == 2, what="the issuer is asked again")
    assert (await at.subject(known)).name == "anna"
    assert not unknown.done(), "the issuer is silent"
    issuer.answers.set()
    with pytest.raises(UnknownCredential):
        await unknown
