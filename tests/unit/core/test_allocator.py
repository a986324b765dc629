"""The heaps of a command and of an engine: few, and memory that was freed is used again, without the kernel."""

import subprocess
import sys

import pytest

from p2pmodel.core.allocator import keep_freed_memory
from tests.support.eventually import PATIENCE

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
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=4 * PATIENCE)
        faults[engine] = int(done.stdout)
    pages = CYCLES * BLOCKS * BLOCK // 4096
    assert faults["without"] > pages / 2, "this program shows nothing"
    assert faults["with"] < pages / 20


HEAPS = """
import ctypes, pathlib, sys, tempfile, threading
from p2pmodel.cli import main, verbs

libc = ctypes.CDLL(None)
libc.fopen.restype, libc.fopen.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_char_p]
libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]

def execute(_imported):
    all_here = threading.Barrier(5)

    def work():
        all_here.wait()
        libc.malloc(100_000)
        all_here.wait()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    all_here.wait()
    all_here.wait()
    with tempfile.NamedTemporaryFile() as report:
        stream = libc.fopen(report.name.encode(), b"w")
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        print(pathlib.Path(report.name).read_text().count("<heap nr="))
    return "", 0

verbs.execute = execute
main() if sys.argv[1] == "with" else execute(None)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_the_threads_of_a_command_share_two_heaps() -> None:
    heaps = {}
    for shared in ("with", "without"):
        command = [sys.executable, "-c", HEAPS, shared]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=4 * PATIENCE)
        heaps[shared] = int(done.stdout)
    assert heaps["without"] > 2, "this program shows nothing"
    assert heaps["with"] <= 2
