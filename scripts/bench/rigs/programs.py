"""Programs that a rig runs: their output with its times, their cost, and their end."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from scripts.bench.rigs.namespaces import ENTER

ROOT = Path(__file__).resolve().parents[3]
STOP_SECONDS = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")


class Program:
    """A running program. Its lines on stdout are kept with the time of their arrival; stderr goes to `log`."""

    def __init__(
        self,
        command: Sequence[str],
        stack: ExitStack,
        *,
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self.command = list(command)
        self.lines: list[tuple[float, str]] = []
        self._log = log
        with ExitStack() as opened:
            errors = opened.enter_context(log.open("ab")) if log else subprocess.DEVNULL
            self._process = subprocess.Popen(
                self.command,
                env=env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        stack.callback(stop_all, [self])
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id, which `ip netns exec` passes on to the program itself."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended. It stays a zombie until `stop_all`, so that its cost can still be read."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        if self._process.returncode is None:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return None
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        return self._process.returncode

    def first(self, seconds: float = 60.0) -> dict[str, Any]:
        """The first line as JSON. SystemExit if there is none within `seconds`."""
        deadline = time.monotonic() + seconds
        while not self.lines:
            if self.ended or time.monotonic() > deadline:
                self._reader.join(1)
                if self.lines:
                    break
                raise SystemExit(f"{self._name()} printed nothing: {self.last_error()}")
            time.sleep(0.02)
        found = json.loads(self.lines[0][1])
        assert isinstance(found, dict)
        return found

    def finish(self, seconds: float = 60.0) -> None:
        """Wait for its end. SystemExit if it fails, or does not end within `seconds`."""
        deadline = time.monotonic() + seconds
        while not self.ended and time.monotonic() < deadline:
            time.sleep(0.02)
        if self.exit_code != 0:
            raise SystemExit(f"{self._name()} failed: {self.last_error()}")

    def last_error(self) -> str:
        """The last line on stderr, and the exit code."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log else []
        return f"{lines[-1] if lines else 'nothing on stderr'} (exit code {self.exit_code})"

    def progress(self) -> dict[str, Any]:
        """The last report of `--progress json` on stderr."""
        for line in reversed(self._log.read_text(errors="replace").splitlines() if self._log else []):
            if line.startswith("{") and '"phase"' in line:
                found = json.loads(line)
                assert isinstance(found, dict)
                return found
        return {}

    def cost(self) -> float:
        """CPU seconds so far, with those of its children that have ended."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return sum(map(int, fields[11:15])) / _TICKS

    def memory(self, field: str = "VmHWM") -> int:
        """Bytes of memory by a field of /proc/PID/status, the highest resident memory by default; 0 after its end."""
        with suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith(f"{field}:"):
                    return int(line.split()[1]) << 10
        return 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def wait(self, deadline: float) -> None:
        """Wait for its end until `deadline` (monotonic), then kill it."""
        try:
            self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_SECONDS)

    def _name(self) -> str:
        entered = self.command[: len(ENTER)] == [*ENTER]
        return " ".join(self.command[len(ENTER) + 1 :] if entered else self.command)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self.lines.append((time.monotonic(), line))


def stop_all(programs: Iterable[Program], seconds: float = STOP_SECONDS) -> None:
    """End programs together: SIGTERM, and SIGKILL for those that do not end in time."""
    running = list(programs)
    for program in running:
        program.signal(signal.SIGTERM)
        program.signal(signal.SIGCONT)
    deadline = time.monotonic() + seconds
    for program in running:
        program.wait(deadline)
