"""What a server knows of its clients, and where it records what they get."""

from dataclasses import dataclass, field

from p2pmodel.trust.access.authoriser import Authoriser
from p2pmodel.trust.audit.trail import AuditTrail


@dataclass(frozen=True, slots=True)
class ClientAccess:
    """The authoriser, and the audit trail if one is kept."""

    authoriser: Authoriser = field(default_factory=Authoriser)
    audit: AuditTrail | None = None


NO_CLIENTS = ClientAccess()
"""No rules, no further clients, no audit log."""
