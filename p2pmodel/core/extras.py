"""Extras of this package: sets of optional libraries, which `pip install 'p2pmodel[EXTRA]'` installs."""

import importlib.util

from p2pmodel.errors import LocalResource

EXTRAS = {
    "load": ("torch", "transformers", "accelerate", "PIL"),
    "cluster": ("asyncssh", "ClusterShell", "tomli_w", "yaml"),
    "s3": ("boto3",),
    "plot": ("matplotlib",),
}
"""The libraries of each extra, by the name of their import."""


def check_extra(extra: str, what: str) -> None:
    """Raise LocalResource unless the libraries of `extra`, which `what` needs, are installed. Imports none of them."""
    for library in EXTRAS[extra]:
        if importlib.util.find_spec(library) is None:
            raise LocalResource(f"{what} needs {library}, which is not installed", hint=install_hint(extra))


def install_hint(extra: str) -> str:
    """The command that installs `extra`."""
    return f"pip install 'p2pmodel[{extra}]'"
