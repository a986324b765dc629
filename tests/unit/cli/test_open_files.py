"""Every command raises its limit of open files, in a process of its own here."""

import subprocess
import sys

SCRIPT = """
import resource, sys
hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 70_000)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
sys.argv = ["p2pmodel", "--version"]
from p2pmodel.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0
from p2pmodel.swarm.libtorrent.session_settings import _connections
print(hard, *resource.getrlimit(resource.RLIMIT_NOFILE), _connections())
resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
print(_connections())
"""


def test_a_command_raises_the_limit_and_bounds_its_connections_below_it() -> None:
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    *_, raised, low = said.splitlines()
    hard, soft, same, connections = map(int, raised.split())
    assert soft == min(hard, 65_536)
    assert same == hard
    assert connections == min(2000, soft // 2)
    assert int(low) == 150
