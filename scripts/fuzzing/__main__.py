"""Feed mutated input to every parser of input from others, and report what is not refused as it should be."""

import argparse
import random
import sys
import time
import traceback


def main(argv: list[str] | None = None) -> int:
    """Run; 0 if every exception was of the error tree or expected of its parser."""
    options = _options().parse_args(argv)
    from scripts.fuzzing.hostile_answers import HostileAnswers  # noqa: PLC0415 - the help needs a plain Python alone
    from scripts.fuzzing.target import Tally, Target, try_once  # noqa: PLC0415
    from scripts.fuzzing.targets import targets  # noqa: PLC0415

    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}, {options.seconds:g} s")
    with HostileAnswers() as hostile:
        chosen: list[Target] = [t for t in (*targets(), hostile.target) if options.only in t.name]
        if not chosen:
            print(f"no parser has '{options.only}' in its name")
            return 2
        share = options.seconds / len(chosen)
        tallies: dict[str, Tally] = {}
        for target in chosen:
            tally = tallies[target.name] = Tally()
            dice, until = random.Random(f"{seed} {target.name}"), time.monotonic() + share
            while time.monotonic() < until or tally.runs < options.least:
                try_once(target, tally, dice)
            print(f"{target.name:28} {tally.runs:9,} inputs, {tally.refused:9,} refused, slowest {tally.slowest:.3f} s")
    failures = 0
    for name, tally in tallies.items():
        for place, (error, data) in tally.failures.items():
            failures += 1
            print(f"\n{name}: {place}\ninput: {str(data)[:1500]!r}")
            traceback.print_exception(error)
    total = sum(tally.runs for tally in tallies.values())
    print(f"{total:,} inputs of {len(tallies)} kinds, {failures} failures")
    return 1 if failures else 0


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("scripts/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for all parsers together (60)")
    parser.add_argument("--seed", type=int, help="repeat a run (default: random)")
    parser.add_argument("--only", default="", help="parsers with this text in their name")
    parser.add_argument("--least", type=int, default=0, help="inputs for each parser, even if they take longer (0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
