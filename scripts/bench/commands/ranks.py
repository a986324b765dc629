"""What a rank of a parallel engine downloads of published models, in blocks and in pieces, beside what it needs.

Nothing is downloaded: names, shapes and the order of the tensors follow from the models' configurations, as
transformers stores them (5 GB a file, in the order of the names), and the division from `p2pmodel fetch`'s own rules.
"""

import argparse
from collections.abc import Sequence

from scripts.bench.commands.options import command_line

BENCHMARK = "scripts.bench.measurements.ranks"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/ranks."""
    parser = command_line("ranks", __doc__)
    parser.add_argument("--ranks", type=int, default=8, help="ranks that share a model (default: 8)")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    return parser.parse_args(arguments)
