"""The revision names of a catalog as semantic versions: which one a range such as `^1.2` means."""

from collections.abc import Iterable

import nodesemver

from p2pmodel.core.content.names import is_version


def newest(version_range: str, names: Iterable[str]) -> str | None:
    """The name of the highest version in a range; None if there is none. Names that are no versions do not count.

    As in npm: `^1.2` is 1.2.0 and later below 2.0.0, `~1.2` below 1.3.0, and a pre-release counts only in a range that
    names one of the same version. `v1.2.0` is 1.2.0.
    """
    versions = [name for name in names if is_version(name) and nodesemver.valid(name, loose=False)]
    found = nodesemver.max_satisfying(versions, version_range, loose=False)
    return None if found is None else str(found)
