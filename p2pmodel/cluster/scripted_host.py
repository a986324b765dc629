"""A connected host on which everything is done by shell scripts; a launcher adds how a command gets there.

The scripts of services are POSIX sh, without a tool beyond coreutils, setsid and, if it runs, systemd. A service has a
folder below the state folder with its command (`command`), its process group (`pid`) or unit (`unit`), and its log
(`log`). A user's systemd that runs and keeps services after the logout starts it as a unit, which restarts it; else it
is a process group of its own.
"""

import hashlib
import shlex
import time
from collections.abc import Sequence
from typing import Protocol

from p2pmodel.cluster.launcher import COMMAND_SECONDS, Completed, HostLook, HostUnreachable, ServiceSpec, ServiceState
from p2pmodel.core.content.names import printable
from p2pmodel.errors import Conflict, LocalResource

_RUNS = r"""
born() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | grep -v '^[ZX]' | cut -d' ' -f20; }
alive() {
  [ -s unit ] && { systemctl --user -q is-active "$(cat unit)"; return; }
  [ -s pid ] && read -r leader birth <pid && [ -n "$birth" ] && [ "$(born "$leader")" = "$birth" ]
}
group_runs() {
  cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | grep -v '^[ZX]' | grep -q "^[^ ]* [0-9]* $leader "
}
"""
# A process id may be reused; its time of birth, in ticks since the machine started, tells. A zombie has ended. dash
# takes a process group only after `kill -s`.

LOOK = (
    _RUNS
    + r"""
case ${XDG_STATE_HOME-} in /*) ;; *) XDG_STATE_HOME= ;; esac
case ${XDG_RUNTIME_DIR-} in /*) ;; *) XDG_RUNTIME_DIR= ;; esac
state=${P2PMODEL_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/p2pmodel}
socket=${P2PMODEL_DAEMON_SOCKET:-${XDG_RUNTIME_DIR:-$state}/p2pmodel.sock}
printf 'state %s\nsocket %s\nmachine %s\ntime %s\n' "$state" "$socket" "$(uname -m)" "$(date +%s.%N)"
for found in "$(command -v p2pmodel)" "$HOME/.local/bin/p2pmodel"; do
  [ -x "$found" ] && { printf 'p2pmodel %s\n' "$found"; break; }
done
printf 'python %s\n' "$(python3 -V 2>/dev/null | sed -n 's/^Python \([0-9]*\.[0-9]*\).*/\1/p')"
for folder in "$state"/services/*/; do
  (cd "$folder" 2>/dev/null && alive && printf 'service %s\n' "$(basename "$folder")")
done
exit 0
"""
)
"""Prints a `key value` line for each fact of a host."""

LOG_BYTES = 2000

_STATE = """
cd {folder} 2>/dev/null || exit 3
{runs}
alive || {{ tail -c {bytes} log 2>/dev/null; [ -s command ] && exit 5; exit 3; }}
[ -z {digest} ] || [ "$(cat command 2>/dev/null)" = {digest} ] || exit 4
tail -c {bytes} log 2>/dev/null
exit 0
"""

_START = """
umask 077
mkdir -p {folder} && cd {folder} || exit 1
{runs}
if alive; then [ "$(cat command)" = {digest} ] && exit 3; exit 4; fi
rm -f unit pid started
printf '%s' {digest} >command
if [ -d /run/systemd/system ] && systemctl --user is-system-running 2>/dev/null | grep -Eq 'running|degraded' \
    && [ "$(loginctl show-user "$(id -un)" -p Linger --value 2>/dev/null || echo yes)" != no ]; then
  systemctl --user reset-failed {unit} 2>/dev/null
  systemd-run --user --unit={unit} --collect -q -p Restart=on-failure -p RestartSec=2 \
    -p "StandardOutput=append:$PWD/log" -p "StandardError=append:$PWD/log" {setenv} -- {command} || exit 1
  printf '%s' {unit} >unit
else
  {export} setsid nohup sh -c 'echo $$ >started; exec "$@"' p2pmodel {command} </dev/null >>log 2>&1 &
  n=0; while [ ! -s started ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done
  echo "$(cat started) $(born "$(cat started)")" >pid
fi
exit 0
"""

_FOREGROUND = """
umask 077
mkdir -p {folder} && cd {folder} || exit 1
{runs}
rm -f unit
printf '%s' {digest} >command
exec </dev/null >>log 2>&1
echo "$$ $(born $$)" >pid
exec env {export} {command}
"""

_STOP = """
cd {folder} 2>/dev/null || exit 3
{runs}
alive || {{ rm -f command; exit 3; }}
if [ -s unit ]; then systemctl --user stop "$(cat unit)"; rm -f unit command; exit 0; fi
kill -s TERM -- "-$leader" 2>/dev/null || kill -s TERM "$leader"
n=0; while {{ alive || group_runs; }} && [ $n -lt {tenths} ]; do sleep 0.1; n=$((n+1)); done
kill -s KILL -- "-$leader" 2>/dev/null
rm -f pid started command
exit 0
"""

WRITE = """
umask 077
mkdir -p "$(dirname "$1")" && [ -O "$(dirname "$1")" ] && cat >"$1.new" && mv -f "$1.new" "$1"
"""
"""Writes stdin to the file that the first argument names."""

APPEARS = """
n=0; until [ "$1" -nt "$2" ] || [ $n -ge 20 ]; do sleep 0.1; n=$((n+1)); done
"""
"""Returns once the file that the first argument names is newer than the second one, or after two seconds."""

STARTED, ABSENT, OTHER, ENDED = 0, 3, 4, 5
"""Exit codes of the scripts: done; not there, or for a start already there; there with another command; ended by
itself."""
STOP_TENTHS = 100
"""Tenths of a second from SIGTERM to SIGKILL."""


def state(folder: str, service: ServiceSpec | str) -> str:
    """Prints the end of the log. Exits with 0 if it runs, ABSENT or ENDED if not, OTHER with another command."""
    digest = _digest(service) if isinstance(service, ServiceSpec) else ""
    return _STATE.format(
        folder=shlex.quote(_of(folder, service)), runs=_RUNS, bytes=LOG_BYTES, digest=shlex.quote(digest)
    )


def start(folder: str, service: ServiceSpec) -> str:
    """Exits with STARTED, ABSENT if it runs already, OTHER if it runs with another command."""
    export = " ".join(f"{name}={shlex.quote(value)}" for name, value in service.environment.items())
    setenv = " ".join(f"--setenv={name}={shlex.quote(value)}" for name, value in service.environment.items())
    return _START.format(
        folder=shlex.quote(_of(folder, service)),
        runs=_RUNS,
        digest=shlex.quote(_digest(service)),
        unit=f"p2pmodel-{service.name}",
        command=shlex.join(service.command),
        export=export,
        setenv=setenv,
    )


def foreground(folder: str, service: ServiceSpec) -> str:
    """Becomes the service; for a launcher that keeps the script running."""
    return _FOREGROUND.format(
        folder=shlex.quote(_of(folder, service)),
        runs=_RUNS,
        digest=shlex.quote(_digest(service)),
        command=shlex.join(service.command),
        export=" ".join(f"{name}={shlex.quote(value)}" for name, value in service.environment.items()),
    )


def stop(folder: str, name: str) -> str:
    """Exits with 0, or ABSENT if it does not run."""
    return _STOP.format(folder=shlex.quote(_of(folder, name)), runs=_RUNS, tenths=STOP_TENTHS)


def command_file(folder: str, name: str) -> str:
    """A file that each start of a service writes anew."""
    return f"{_of(folder, name)}/command"


def _of(folder: str, service: ServiceSpec | str) -> str:
    name = service if isinstance(service, str) else service.name
    return f"{folder}/services/{name}"


def _digest(service: ServiceSpec) -> str:
    text = shlex.join([*service.command, *(f"{name}={value}" for name, value in sorted(service.environment.items()))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


LOOK_SECONDS = 30.0
STOP_SECONDS = STOP_TENTHS / 10 + COMMAND_SECONDS


class _Runs(Protocol):
    async def __call__(self, command: Sequence[str], *, stdin: bytes = b"", timeout: float = ...) -> Completed: ...


class ScriptedHost:
    """The methods of a RemoteHost that scripts do, over `run`. `state_dir`: where its services are recorded; None: the
    default of the host's user. `address`: as in HostLook."""

    def __init__(self, name: str, run: _Runs, *, state_dir: str | None = None, address: str = "") -> None:
        self.name = name
        self._run = run
        self._state_dir = state_dir
        self._address = address

    async def look(self) -> HostLook:
        """See RemoteHost."""
        began = time.time()
        script = f"P2PMODEL_STATE_DIR={self._quoted()}; {LOOK}" if self._state_dir else LOOK
        done = await self._run(["sh", "-c", script], timeout=LOOK_SECONDS)
        middle = (began + time.time()) / 2
        lines = [line.partition(" ") for line in done.out.decode(errors="replace").splitlines()]
        facts = {key: printable(value.strip(), 4096) for key, _, value in lines}
        if not facts.get("socket") or not facts.get("time"):
            raise HostUnreachable(
                f"{self.name} runs no shell: {done.reason}", hint="check that a login there gives a shell"
            )
        self._state_dir = facts["state"]
        command = (facts["p2pmodel"],) if facts.get("p2pmodel") else ()
        return HostLook(
            state_dir=facts["state"],
            socket=facts["socket"],
            p2pmodel=command,
            python=facts.get("python", ""),
            clock=_seconds(facts["time"], middle) - middle,
            machine=facts.get("machine", ""),
            address=self._address,
            services=tuple(printable(value.strip(), 60) for key, _, value in lines if key == "service"),
        )

    async def write(self, path: str, data: bytes) -> None:
        """See RemoteHost."""
        done = await self._run(["sh", "-c", WRITE, "sh", path], stdin=data)
        if done.code:
            raise LocalResource(f"{self.name} cannot write {path}: {done.reason}", hint="check its disk and its mode")

    async def start(self, service: ServiceSpec) -> bool:
        """See RemoteHost."""
        done = await self._run(["sh", "-c", start(await self._folder(), service)])
        if done.code == OTHER:
            raise Conflict(
                f"{self.name} runs the {service.name} of another roll-out", hint="end it first with the option --down"
            )
        if done.code not in (STARTED, ABSENT):
            raise LocalResource(f"{self.name} cannot start the {service.name}: {done.reason}", hint="see its log there")
        return done.code == STARTED

    async def state(self, service: ServiceSpec | str) -> ServiceState:
        """See RemoteHost."""
        done = await self._run(["sh", "-c", state(await self._folder(), service)])
        log = done.out.decode(errors="replace")
        running = done.code in (0, OTHER)
        return ServiceState(running, known=running or done.code == ENDED, same=done.code != OTHER, log=log)

    async def stop(self, name: str) -> bool:
        """See RemoteHost."""
        done = await self._run(["sh", "-c", stop(await self._folder(), name)], timeout=STOP_SECONDS)
        if done.code not in (0, ABSENT):
            raise LocalResource(f"{self.name} cannot stop the {name}: {done.reason}", hint="see its log there")
        return done.code == 0

    async def _folder(self) -> str:
        if self._state_dir is None:
            await self.look()
        assert self._state_dir is not None
        return self._state_dir

    def _quoted(self) -> str:
        return shlex.quote(self._state_dir or "")


def _seconds(text: str, otherwise: float) -> float:
    try:
        return float(text)
    except ValueError:  # a `date` without nanoseconds prints an N
        try:
            return float(text.partition(".")[0])
        except ValueError:
            return otherwise
