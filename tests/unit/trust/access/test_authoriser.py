"""The gate of a server: which client a credential is, and which error a refusal is."""

import pytest

from p2pmodel.config.sections.trust import AccessRule, AccessSettings
from p2pmodel.core.network.rights import RequestCredentials, Right
from p2pmodel.errors import AccessDenied, Forbidden, GatedLogin, GatedRepo, UnknownCredential
from p2pmodel.trust.access.authoriser import Authoriser, ServerGate
from p2pmodel.trust.access.policy import AccessPolicy, Subject

OWN = "Bearer own-token"
HF = RequestCredentials("Bearer hf_secret")
RULES = AccessPolicy([AccessRule(subjects=("user:anna",), repos=("org/*",))])


class Directory:
    """Knows anna alone."""

    def recognises(self, presented: RequestCredentials) -> bool:
        return presented.authorization.startswith("Basic")

    async def subject(self, presented: RequestCredentials) -> Subject:
        if presented.authorization != "Basic anna":
            raise UnknownCredential("name or password are wrong")
        return Subject("user", "anna")


def gate(policy: AccessPolicy = RULES, *, own: bool = False, hub: bool = False) -> ServerGate:
    authoriser = Authoriser(policy, None, [Directory()])
    return ServerGate(authoriser, OWN.__eq__ if own else None, takes_hub_tokens=hub)


async def test_rules_decide_about_the_client_that_a_directory_knows() -> None:
    assert await gate().admit(RequestCredentials("Basic anna"), "read", "org/m") == Right("user:anna", "rule 1")
    with pytest.raises(GatedRepo, match=r"user:anna may not read other/m \(no rule\)"):
        await gate().admit(RequestCredentials("Basic anna"), "read", "other/m")
    with pytest.raises(UnknownCredential):
        await gate().admit(RequestCredentials("Basic bert"), "read", "org/m")
    with pytest.raises(Forbidden, match="may not publish org/m"):
        await gate().admit(RequestCredentials("Basic anna"), "publish", "org/m")


async def test_a_client_without_a_credential_is_asked_to_log_in() -> None:
    with pytest.raises(GatedLogin):
        await gate().admit(RequestCredentials(), "read", "org/m")
    with pytest.raises(AccessDenied) as refused:
        await gate().admit(RequestCredentials(), "operate", None)
    assert refused.type is AccessDenied


async def test_without_rules_a_server_with_a_token_requires_it() -> None:
    closed = gate(AccessPolicy(), own=True)
    assert (await closed.admit(RequestCredentials(OWN), "operate", None)).subject == "server"
    for wrong in (RequestCredentials(), RequestCredentials(local=True)):
        with pytest.raises(AccessDenied, match="requires a token"):
            await closed.admit(wrong, "read", "org/m")
    with pytest.raises(UnknownCredential):
        await closed.admit(HF, "read", "org/m")


async def test_a_hub_token_is_the_clients_own_right_and_not_that_of_its_machine() -> None:
    right = await gate(AccessPolicy(), hub=True).admit(
        RequestCredentials("Bearer hf_secret", local=True), "read", "org/m"
    )
    assert (right.subject, right.ask_mirror, right.token) == ("hub", True, "hf_secret")
    assert "hf_secret" not in repr(right)
    right = await gate(AccessPolicy()).admit(RequestCredentials("Bearer hf_secret", local=True), "read", "org/m")
    assert (right.subject, right.ask_mirror, right.token) == ("local", False, None), "no mirror takes such tokens"
    assert (await gate(AccessPolicy()).admit(HF, "read", "org/m")).ask_mirror


async def test_a_machine_token_that_is_no_longer_valid_goes_to_no_mirror() -> None:
    with pytest.raises(UnknownCredential):
        await gate(AccessPolicy(), hub=True).admit(RequestCredentials("Bearer p2pm_0123456789"), "read", "org/m")


async def test_a_certificate_names_the_client_and_a_hub_token_beside_it_counts_too() -> None:
    policy = AccessPolicy(
        [AccessRule(subjects=("certificate:gpu-*",), repos=("org/*",)), AccessRule(subjects=("hub",))]
    )
    presented = RequestCredentials("Bearer hf_secret", "gpu-1")
    assert not (await gate(policy, hub=True).admit(presented, "read", "org/m")).ask_mirror
    assert (await gate(policy, hub=True).admit(presented, "read", "other/m")).ask_mirror


async def test_a_reload_replaces_the_rules_and_never_opens_a_server() -> None:
    authoriser = Authoriser(RULES, None, [Directory()])
    at = ServerGate(authoriser)
    authoriser.change(AccessSettings(rules=(AccessRule(subjects=("user:anna",), repos=("other/*",)),)))
    await at.admit(RequestCredentials("Basic anna"), "read", "other/m")
    with pytest.raises(GatedRepo):
        await at.admit(RequestCredentials("Basic anna"), "read", "org/m")
    authoriser.change(AccessSettings())
    with pytest.raises(GatedLogin):
        await at.admit(RequestCredentials(), "read", "other/m")
