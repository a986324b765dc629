"""Shell scripts for services on a host: POSIX sh, without a tool beyond coreutils, setsid and, if it runs, systemd.

A service has a folder below the state folder with its command (`command`), its process group (`pid`) or unit
(`unit`), and its log (`log`). A user's systemd that runs and keeps services after the logout starts it as a unit, which
restarts it; else it is a process group of its own.
"""

import hashlib
import shlex

from p2pmodel.cluster.launcher import ServiceSpec

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
