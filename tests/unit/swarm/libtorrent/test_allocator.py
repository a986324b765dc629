"""The engine's blocks: memory that was freed is used again, without the kernel."""

import subprocess
import sys

import pytest

from p2pmodel.swarm.libtorrent.allocator import keep_freed_memory

BLOCK, BLOCKS, CYCLES = 16 << 10, 256, 20
PROGRAM = f"""
import asyncio, ctypes, resource, sys
from p2pmodel.swarm.engine import EngineSettings
from p2pmodel.swarm.libtorrent.engine import LibtorrentEngine

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def cycle():
    blocks = [libc.malloc({BLOCK}) for _ in range({BLOCKS})]
    for block in blocks:
        ctypes.memset(block, 1, {BLOCK})
    for block in reversed(blocks):
        libc.free(block)

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

async def main():
    if sys.argv[1] == "with":
        async with LibtorrentEngine(EngineSettings(host="127.0.0.1", port=0)):
            pass
    cycle()
    before = faults()
    for _ in range({CYCLES}):
        cycle()
    print(faults() - before)

asyncio.run(main())
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_once_there_is_an_engine_freed_blocks_stay_with_the_process() -> None:
    faults = {}
    for engine in ("with", "without"):
        command = [sys.executable, "-c", PROGRAM, engine]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        faults[engine] = int(done.stdout)
    pages = CYCLES * BLOCKS * BLOCK // 4096
    assert faults["without"] > pages / 2, "this program shows nothing"
    assert faults["with"] < pages / 20
