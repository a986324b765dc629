"""`python gated.py GATE ARGUMENTS`: `p2pmodel ARGUMENTS`, loaded, that begins once the file GATE exists.

A slow machine takes seconds to load a program. Processes that tests start together begin at the same moment behind one
gate. Each makes `GATE.<pid>` when it waits there.
"""

import importlib
import os
import sys
import time
from pathlib import Path

MODULES = ("p2pmodel.cli.fetch.fetch", "p2pmodel.node.fetch.fetch", "p2pmodel.swarm.libtorrent.engine")


def wait(gate: Path) -> None:
    """Load the modules, and return once `gate` exists."""
    for module in MODULES:
        importlib.import_module(module)
    gate.with_name(f"{gate.name}.{os.getpid()}").touch()
    while not gate.exists():
        time.sleep(0.01)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, where modules have common names
    wait(Path(sys.argv.pop(1)))
    from p2pmodel.cli import main

    main()
