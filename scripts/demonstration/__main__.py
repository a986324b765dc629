"""Runs the demo: one mirror, one seeder that is killed midway, three peers, and an answer about a picture.

Everything listens on 127.0.0.x and is kept below .demo/ in this clone.
"""

import argparse
import sys
from importlib import import_module


def main() -> int:
    """Parse the command line, then run the demo."""
    description = "One mirror, one seeder that is killed midway, three peers, and an answer about a picture."
    parser = argparse.ArgumentParser(prog="scripts/demo", description=description)
    parser.add_argument("--size-mb", type=int, default=256, help="size of the model repository (default: 256)")
    parser.add_argument("--keep", action="store_true", help="keep .demo/ at the end")
    options = parser.parse_args()
    # Imported late: --help needs the standard library alone.
    return int(import_module("scripts.demonstration.run").run(size_mb=options.size_mb, keep=options.keep))


if __name__ == "__main__":
    sys.exit(main())
