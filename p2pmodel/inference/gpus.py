"""The GPUs of this machine, as nvidia-smi lists them."""

import shutil
import subprocess

from p2pmodel.core.sizes import human

QUERY = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
"""Prints the memory of each GPU in MiB, one a line."""
PATIENCE = 10.0
"""Seconds for nvidia-smi: it loads the driver where nothing keeps it loaded."""


def gpu_memory() -> tuple[int, ...]:
    """Bytes of memory of each GPU; empty without GPUs, or if nvidia-smi does not answer in time. Blocks."""
    if shutil.which(QUERY[0]) is None:
        return ()
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=PATIENCE, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parsed(done.stdout) if done.returncode == 0 else ()


def parsed(output: str) -> tuple[int, ...]:
    """The bytes in the output of QUERY. A line that is no number, as of a GPU in an error state, counts as no GPU."""
    return tuple(int(line) << 20 for line in map(str.strip, output.splitlines()) if line.isdecimal())


def described(memory: tuple[int, ...]) -> str:
    """`memory` in words."""
    return f"{len(memory)} x {human(min(memory))}" if memory else "no GPU"
