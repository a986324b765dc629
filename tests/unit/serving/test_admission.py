"""Rights at a served model: OpenAI's own client, with the credentials of clients that the rules know."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest

from p2pmodel.config.sections.trust import AccessRule, AccessSettings, OidcSettings
from p2pmodel.core.files.hash_chain import parsed_line
from p2pmodel.core.network.proxies import DIRECT
from p2pmodel.errors import P2PModelError
from p2pmodel.http.server import serving
from p2pmodel.trust.access.authoriser import Authoriser, ClientAccess
from p2pmodel.trust.access.machine_tokens import MachineTokens
from p2pmodel.trust.access.policy import AccessPolicy
from p2pmodel.trust.audit_log import AuditLog, AuditTrail, lines_of
from tests.support.chat_models import ScriptedModel
from tests.support.model_endpoint import NAME, Served, serving_model
from tests.support.oidc_issuer import Issuer

COMMIT = "a" * 40
HELLO: Any = [{"role": "user", "content": "hello"}]
RULES = (
    AccessRule(subjects=("token:anna", "oidc:anna"), verbs=("infer",), repos=("org/*",)),
    AccessRule(subjects=("token:bert",), verbs=("read",)),
    AccessRule(subjects=("token:prometheus",), verbs=("operate",)),
)


class Site:
    """Machine tokens of some clients, the rules, and an audit log."""

    def __init__(self, folder: Path, rules: tuple[AccessRule, ...] = RULES) -> None:
        known = MachineTokens(folder / "tokens.json")
        self.tokens = {name: known.issue(name, (), None) for name in ("anna", "bert", "prometheus")}
        self.authoriser = Authoriser(AccessPolicy(rules), known)
        self._log = AuditLog(folder / "audit", "serve", 1 << 20)
        self._folder = folder / "audit"
        self.clients = ClientAccess(self.authoriser, AuditTrail(self._log))

    @contextmanager
    def recording(self) -> Iterator[None]:
        self._log.open()
        try:
            yield
        finally:
            self._log.close()

    @property
    def recorded(self) -> list[tuple[str, ...]]:
        lines = [parsed_line(line) or {} for line in lines_of(self._folder, "serve")]
        return [tuple(str(line[key]) for key in ("subject", "what", "repo", "commit", "right")) for line in lines]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    with found.recording():
        yield found


async def ask(served: Served, key: str, **more: Any) -> str:
    async with openai.AsyncOpenAI(base_url=served.api, api_key=key, max_retries=0) as client:
        if more.get("stream"):
            chunks = [each async for each in await client.chat.completions.create(model=NAME, messages=HELLO, **more)]
            return "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
        answer = await client.chat.completions.create(model=NAME, messages=HELLO, **more)
        return str(answer.choices[0].message.content)


async def status(served: Served, path: str, token: str = "") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(served.url + path) as response:
        return response.status


async def test_a_rule_decides_which_client_gets_answers_and_the_audit_log_has_both(site: Site) -> None:
    model = ScriptedModel(repo=NAME, commit=COMMIT)
    async with serving_model(model, clients=site.clients, key="sesame-sesame-sesame") as served:
        for stream in (False, True):
            assert await ask(served, site.tokens["anna"], stream=stream) == "It is red."
            with pytest.raises(openai.PermissionDeniedError, match="token:bert may not get answers of org/model") as no:
                await ask(served, site.tokens["bert"], stream=stream)
            assert (no.value.code, no.value.type) == ("forbidden", "invalid_request_error")
            for wrong in ("p2pm_0123456789abcdef", "none", "sesame"):
                with pytest.raises(openai.AuthenticationError) as unknown:
                    await ask(served, wrong, stream=stream)
                assert unknown.value.code == "invalid_api_key"
        with pytest.raises(openai.PermissionDeniedError, match="server may not get answers"):
            await ask(served, "sesame-sesame-sesame")
    assert len(model.asked) == 2, "no refused request reached the model"
    assert site.recorded == [
        ("token:anna", "answer", NAME, COMMIT, "rule 1"),
        ("token:bert", "refused", NAME, "", "no rule"),
        ("server", "refused", NAME, "", "no rule"),
    ]


async def test_every_path_but_the_page_and_the_probes_needs_a_right(site: Site) -> None:
    async with serving_model(clients=site.clients, key="sesame-sesame-sesame") as served:
        for path in ("/v1/models", f"/v1/models/{NAME}", "/v1/nothing"):
            assert await status(served, path) == 401, path
            assert await status(served, path, site.tokens["bert"]) == 403, path
            assert await status(served, path, site.tokens["anna"]) in (200, 404), path
        assert await status(served, "/metrics", site.tokens["anna"]) == 403
        assert await status(served, "/metrics", site.tokens["prometheus"]) == 200
        for path in ("/", "/page/main.js", "/healthz", "/health", "/readyz", "/startupz"):
            assert await status(served, path) == 200, path


async def test_a_token_of_the_oidc_issuer_is_an_api_key(site: Site) -> None:
    issuer = Issuer()
    async with serving(issuer.app(), "127.0.0.1", 0, grace=0.1) as issuer.url:
        from p2pmodel.trust.access.oidc import OidcIssuer

        settings = OidcSettings(issuer=issuer.url, audience="p2pmodel")
        site.authoriser.directories = (OidcIssuer(settings, DIRECT),)
        async with serving_model(clients=site.clients) as served:
            assert await ask(served, issuer.token().bearer) == "It is red."
            with pytest.raises(openai.PermissionDeniedError, match="oidc:bert may not get answers"):
                await ask(served, issuer.token(sub="bert").bearer)
            with pytest.raises(openai.AuthenticationError, match="not valid"):
                await ask(served, issuer.token(aud="another").bearer)


async def test_a_rule_for_the_name_at_the_hub_holds_for_an_older_name_too(tmp_path: Path) -> None:
    deny = AccessRule(action="deny", verbs=("infer",), repos=("secret/*",))
    site = Site(tmp_path, (*RULES, deny))
    with site.recording():
        model = ScriptedModel(repo="secret/model", commit=COMMIT)
        async with serving_model(model, clients=site.clients) as served:
            with pytest.raises(openai.PermissionDeniedError, match="answers of secret/model"):
                await ask(served, site.tokens["anna"])
    assert model.asked == []


async def test_without_rules_a_client_that_may_read_gets_answers_and_a_reload_closes(tmp_path: Path) -> None:
    site = Site(tmp_path, ())
    with site.recording():
        async with serving_model(clients=site.clients, key="sesame-sesame-sesame") as served:
            assert await ask(served, site.tokens["bert"]) == "It is red."
            assert await status(served, "/metrics", site.tokens["bert"]) == 403
            site.authoriser.change(AccessSettings(rules=RULES))
            with pytest.raises(openai.PermissionDeniedError):
                await ask(served, site.tokens["bert"])


async def test_an_answer_that_cannot_be_recorded_is_not_given(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_content: object) -> None:
        raise P2PModelError("the audit log cannot be written")

    model = ScriptedModel()
    async with serving_model(model, clients=site.clients) as served:
        monkeypatch.setattr(site._log, "record", fail)
        with pytest.raises(openai.InternalServerError, match="internal error"):
            await ask(served, site.tokens["anna"])
    assert model.asked == []
