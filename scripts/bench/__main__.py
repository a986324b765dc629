"""Runs one benchmark: python -m scripts.bench NAME [OPTIONS].

Options are read with the standard library alone, so that --help works without an environment. What a benchmark imports
besides is imported after that.
"""

import sys
from importlib import import_module


def main() -> None:
    """Read the options of the benchmark, then run it."""
    name, *arguments = sys.argv[1:]
    command = import_module(f"scripts.bench.commands.{name}")
    options = command.parse(arguments)
    import_module(command.BENCHMARK).main(options)


if __name__ == "__main__":
    main()
