"""The root certificate that goes into the torrents of a snapshot, if its swarm is private."""

from p2pmodel.config.sections.coordinator import PrivateSettings
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import BadTorrent, InvalidInput
from p2pmodel.swarm.torrents import Metainfo


def authority_of(repo: RepoId, settings: PrivateSettings, *, asked: bool = False) -> str | None:
    """The root certificate (PEM) for the torrents of `repo`; None where its swarm is public.

    `asked`: the user wants a private one, whatever the settings cover. Blocks for a moment. Raises InvalidInput without
    a certificate.
    """
    if not (asked or settings.covers(str(repo))):
        return None
    if settings.ca_file is None:
        raise InvalidInput(
            f"the swarm of {repo} is private, and there is no authority for it",
            hint="set private.ca_file; 'p2pmodel ca init' makes an authority",
        )
    from p2pmodel.trust.certificates import root_pem  # noqa: PLC0415 - only private swarms need X.509

    return root_pem(settings.ca_file).decode()


def check_private(metainfo: Metainfo, settings: PrivateSettings) -> None:
    """Raise BadTorrent for a public torrent of a repository with private swarms alone."""
    repo = metainfo.manifest.repo
    if metainfo.authority is None and settings.covers(str(repo)):
        raise BadTorrent(
            f"this torrent of {repo} is public, and private.repos requires a private swarm",
            hint="seed it with --private",
        )
