"""The optional libraries of this package: one error that names the extra, instead of a traceback."""

import importlib.util

from p2pmodel.errors import LocalResource

_LIBRARIES = ("asyncssh", "ClusterShell", "tomli_w", "yaml")
_INSTALL = 'roll-outs need the extra: pip install "p2pmodel[cluster]"'


def check_installed() -> None:
    """Raise LocalResource unless the libraries are installed. Imports none of them."""
    for name in _LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise LocalResource(
                f"{name} is not installed", hint='roll-outs need the extra: pip install "p2pmodel[cluster]"'
            )
