"""A pull-through mirror under many clients.

cold    `--clients` clients request one file at once from an edge mirror; only the hub behind it has the file. Every
        byte of every client is compared with the file. Printed: the bytes that the hub sent, as a multiple of the file;
        the time until the last client was done; the mirror's highest memory, in all (`rss`) and its own (`anon`).
warm    one client takes the file again `--runs` times, from the mirror and from nginx (`sendfile on`; where nginx and
        curl are installed), in turn; medians.

Everything listens on 127.0.0.x and is deleted at the end.
"""

import argparse
from collections.abc import Sequence

from scripts.bench.commands.options import add_output, command_line

BENCHMARK = "scripts.bench.measurements.pull_through"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/pull-through."""
    parser = command_line("pull-through", __doc__)
    add = parser.add_argument
    add("--size-mib", type=int, default=200, help="size of the file (default: 200)")
    add("--clients", type=int, default=200, help="clients at once (default: 200)")
    add("--runs", type=int, default=7, help="rounds of the warm part (default: 7)")
    add_output(add, folder="files")
    return parser.parse_args(arguments)
