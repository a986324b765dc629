"""The host memory of one load, for a dense and an MoE model of Qwen3-VL's shape, each in a process of its own:

cpu   onto the CPU
ring  through the ring of pinned buffers, onto a twin of a GPU: its memory is shared memory, which counts apart

`anonymous` is the highest anonymous memory (RssAnon of /proc/self/status) above that before the load. Page cache and
mapped files do not count. `weights` is what of it the loaded model keeps: tensors that were converted, such as the
experts, which checkpoints store transposed. `beside` is the rest, and `bound` what is promised for it: 500 MB, the
ring, and twice the largest tensor.
"""

import argparse
from collections.abc import Sequence

from scripts.bench.commands.options import add_output, command_line

BENCHMARK = "scripts.bench.measurements.load_memory"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of scripts/bench/load-memory."""
    parser = command_line("load-memory", __doc__)
    add = parser.add_argument
    add("--layers", type=int, default=10, help="layers of 100 MB of the dense model (default: 10)")
    add("--moe-layers", type=int, default=12, help="layers of 80 MB of the MoE model (default: 12)")
    add_output(add)
    return parser.parse_args(arguments)
