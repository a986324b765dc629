"""The limit of open files of this process."""

import resource
from contextlib import suppress

MOST_FILES = 65_536
"""Open files up to which the limit is raised."""


def raise_open_file_limit() -> None:
    """Raise the soft limit towards the hard one: each connection and each shard takes a descriptor, 1024 are too few.

    Programs that this process starts inherit it; the package starts none that use `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
