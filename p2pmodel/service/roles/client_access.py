"""The authoriser, the audit log and the policy on contents of a server, as its settings say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from p2pmodel.config.settings import Settings
from p2pmodel.core.tasks import companions
from p2pmodel.service.roles.reload import Reload
from p2pmodel.trust.access.authoriser import Authoriser, ClientAccess, Directory
from p2pmodel.trust.access.machine_tokens import MachineTokens
from p2pmodel.trust.access.policy import AccessPolicy
from p2pmodel.trust.audit_log import AuditLog, AuditTrail

RULES = "access.rules"


def tokens_file(settings: Settings) -> Path:
    """The file of machine tokens."""
    return settings.access.tokens_file or _state(settings) / "access" / "tokens.json"


def audit_folder(settings: Settings) -> Path:
    """The folder of audit logs."""
    return settings.audit.folder or _state(settings) / "audit"


def authoriser_of(settings: Settings, reload: Reload | None = None) -> Authoriser:
    """The authoriser of a process. A reload replaces its rules; machine tokens are followed without one.

    Raises InvalidInput if a directory of users is set, and its extra is not installed.
    """
    directories: list[Directory] = []
    if settings.oidc.issuer is not None:
        from p2pmodel.trust.access.oidc import OidcIssuer  # noqa: PLC0415 - an extra

        directories.append(OidcIssuer(settings.oidc, settings.origin.proxies))
    if settings.ldap.url is not None:
        from p2pmodel.trust.access.ldap import LdapDirectory  # noqa: PLC0415 - an extra

        directories.append(LdapDirectory(settings.ldap, ttl=settings.access.rights_ttl))
    tokens = MachineTokens(tokens_file(settings)) if _has_place(settings) else None
    authoriser = Authoriser(AccessPolicy(settings.access.rules), tokens, directories)
    if reload is not None:
        reload.setting(RULES, apply=lambda now: authoriser.change(now.access))
    return authoriser


@asynccontextmanager
async def auditing(settings: Settings, server: str) -> AsyncIterator[AuditTrail | None]:
    """The audit trail of the server with this name while the context lasts; None if none is kept."""
    if not settings.audit.enabled:
        yield None
        return
    log = AuditLog(audit_folder(settings), server, settings.audit.rotate_bytes)
    await asyncio.to_thread(log.open)
    try:
        async with companions() as start:
            start(log.run())
            yield AuditTrail(log)
    finally:
        await asyncio.to_thread(log.close)


@asynccontextmanager
async def clients_of(settings: Settings, server: str, authoriser: Authoriser) -> AsyncIterator[ClientAccess]:
    """What the server with this name knows of its clients while the context lasts, and where it records what they get.
    The connections to directories end with it."""
    try:
        async with auditing(settings, server) as audit:
            yield ClientAccess(authoriser, audit)
    finally:
        await authoriser.close()


def _has_place(settings: Settings) -> bool:
    return settings.access.tokens_file is not None or settings.state_dir is not None


def _state(settings: Settings) -> Path:
    assert settings.state_dir is not None
    return settings.state_dir
