"""Run random scenarios of faults in random networks: python -m scripts.soaking. Needs root."""

import argparse
import random
import sys


def main(argv: list[str] | None = None) -> int:
    """Run; 0 if every scenario was right, at the latest when it was repeated."""
    options = _options().parse_args(argv)
    from scripts.soaking.soak import Soak  # noqa: PLC0415 - the help needs a plain Python alone

    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    return Soak(
        seed,
        options.scenarios,
        options.minutes,
        per_round=options.per_round,
        jobs=options.jobs,
        only=options.only,
        quick=options.quick,
        lenient=options.lenient,
        keep=options.keep,
        json=options.json,
    ).run()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("scripts/soak", description=__doc__)
    parser.add_argument("--scenarios", type=int, default=200, help="number of scenarios (200)")
    parser.add_argument("--seed", type=int, help="repeat a run (default: random)")
    parser.add_argument("--minutes", type=float, default=120.0, help="start no scenario after that time (120)")
    parser.add_argument("--per-round", type=int, default=4, help="scenarios for one undisturbed run (4)")
    parser.add_argument("--jobs", type=int, default=2, help="rounds at a time (2)")
    parser.add_argument("--only", default="", metavar="ROUND.NUMBER", help="these scenarios alone, comma-separated")
    parser.add_argument("--quick", action="store_true", help="two peers and 8 MB in all scenarios")
    parser.add_argument("--lenient", action="store_true", help="three times the seconds, and one more copy")
    parser.add_argument("--keep", default="", metavar="FOLDER", help="where failing scenarios leave their logs")
    parser.add_argument("--json", default="", metavar="FILE", help="file for all figures")
    return parser


if __name__ == "__main__":
    sys.exit(main())
