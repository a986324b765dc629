"""Load a tiny Qwen3-VL with every fault at every tensor boundary: python -m scripts.load_faults."""

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    """Run; 0 if every case was right."""
    options = _options().parse_args(argv)
    from scripts.load_faults.matrix import run  # noqa: PLC0415 - the help needs a plain Python alone

    return run(options)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("scripts/load-faults", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="each Nth boundary alone, and the last one (1: all)")
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="I/N",
                        help="the Ith of N parts of these boundaries, for several runs side by side (1/1)")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=60.0, help="start no case after that time (60)")
    parser.add_argument("--only", default="", metavar="NAME", help="faults with this in their names alone")
    parser.add_argument("--processes", type=int, default=3, help="boundaries for faults of real processes (3)")
    parser.add_argument("--json", default="", metavar="FILE", help="file for all figures")
    return parser


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"'{text}' is no part: give 2/4 for the second of four")
    return int(number), int(count)


if __name__ == "__main__":
    sys.exit(main())
