"""Commands without one of their standard streams, as a service manager or `>&-` starts them."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys
from p2pmodel.cli import main, verbs
import click
from p2pmodel.cli.terminal.output import result

def callback():
    with open(sys.argv[2], "w+") as data:
        number = data.fileno()
        result("the result")
        print("a line", file=sys.stderr)
        os.write(1, b"of a library")
        os.write(2, b"of a library")
        data.write("the data")
    sys.exit(0 if number > 2 and sys.stdin.read() == "" else 3)

class Module:
    raising = click.Command("raising", callback=callback, params=[click.Argument(["file"], expose_value=False)])

sys.modules["raising"] = Module
verbs._VERBS["raising"] = ("raising:raising", "")
main()
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_the_null_device(tmp_path: Path, closed: str) -> None:
    data = tmp_path / "data"
    line = [sys.executable, "-c", SCRIPT, "raising", str(data)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *line],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    assert data.read_text() == "the data"
    assert ("the result" in done.stdout) == (">&-" not in closed.split())
    assert ("a line" in done.stderr) == ("2>&-" not in closed)
