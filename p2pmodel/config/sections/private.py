"""Settings of private swarms: which snapshots they are for, and the cluster's certificate authority."""

import fnmatch
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from p2pmodel.config.sections.section import Section, split_list


class PrivateSettings(Section):
    """Private swarms: only nodes that a coordinator admits exchange pieces, over TLS."""

    repos: Annotated[tuple[str, ...], NoDecode] = ()
    """Repositories that are exchanged in private swarms alone, as `org/*`; comma-separated in an environment variable.
    """
    ca_file: Path | None = None
    """PEM file with the root certificate of the cluster's authority: for seeders and coordinators of private swarms."""
    ca_key: Path | None = None
    """PEM file with the private key of that authority, mode 0600: for coordinators alone."""
    lifetime: float = Field(default=600.0, ge=2)
    """Seconds for which a coordinator's certificates for nodes are valid; it renews them after half of that."""
    revoked: Annotated[tuple[str, ...], NoDecode] = ()
    """Nodes that a coordinator admits to no private swarm: addresses, networks (10.0.0.0/8), names in client
    certificates and names of publishers, as `gpu*`. SIGHUP applies a change at once. Comma-separated in an environment
    variable."""
    port: int | None = Field(default=None, ge=0, le=0xFFFF)
    """Port for peers of private swarms, on the host of `swarm.listen`. None: 6883 or, where that is taken or on
    loopback, a free one."""
    source_port: int | None = Field(default=None, ge=0, le=0xFFFF)
    """Port of the HTTP source of private snapshots, on the host of `swarm.listen`: over TLS, for nodes with a
    certificate of the swarm. None: 6884 or, where that is taken or on loopback, a free one."""

    @field_validator("repos", "revoked", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split_list(value, ",")

    def covers(self, repo: str) -> bool:
        """Whether the swarms of this repository must be private."""
        return any(fnmatch.fnmatchcase(repo.lower(), pattern.lower()) for pattern in self.repos)
