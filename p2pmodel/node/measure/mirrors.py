"""Choose what to probe the mirrors with, and check that they may be asked at all."""

from collections.abc import Callable

from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import InvalidInput
from p2pmodel.node.measure.bench import chosen
from p2pmodel.origin.mirrors.measurement import MirrorMeasurement
from p2pmodel.origin.origin import Origin


def measurement(settings: Settings) -> MirrorMeasurement:
    """Measurement of the mirrors in `settings`."""
    return MirrorMeasurement(settings.mirrors, settings.origin)


def online(settings: Settings) -> None:
    """Raise InvalidInput if the mirrors may not be asked, or none is configured."""
    if settings.offline:
        raise InvalidInput("HF_HUB_OFFLINE forbids requests to the mirrors", hint="unset it")
    if not settings.mirrors:
        raise InvalidInput("no mirror is configured", hint="see docs/reference/settings.md")


async def sample_of(settings: Settings, ref: Reference, note: Callable[[str], None]) -> tuple[Manifest, ManifestFile]:
    """The largest file of `ref`, for a probe to read from. Raises as `Origin.manifest` does."""
    async with Origin(settings.mirrors, settings.origin, on_note=note) as origin:
        manifest = await origin.manifest(ref)
    return manifest, chosen(manifest, None)
