"""A real Slurm of one controller and some nodes, each in a network namespace of its own, with proctrack/cgroup."""

import os
import secrets
import shutil
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.support.cluster_rig import ClusterRig
from tests.support.eventually import PATIENCE

PROGRAMS = ("slurmctld", "slurmd", "srun", "salloc", "munged")
CONFIGURATION = """\
ClusterName=t
SlurmctldHost=ctl({controller})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/sock
CredType=cred/munge
ProctrackType=proctrack/cgroup
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/%n.log
"""


def missing() -> str:
    """The reason why this machine cannot have the rig; "" if it can."""
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"it needs {', '.join(absent)} (Debian: slurmctld slurmd slurm-client munge)" if absent else ""


class SlurmRig:
    """Slurm on the hosts of `rig`. `local`: a folder that each node has for itself; `prolog`: a program before jobs."""

    def __init__(self, rig: ClusterRig, stack: ExitStack, *, prolog: Path | None = None) -> None:
        self._rig = rig
        self._prolog = f"Prolog={prolog}\nPrologFlags=Alloc\n" if prolog else ""
        self._stack = stack
        self.folder = rig.folder / "slurm"
        self.local = self.folder / "local"
        for name in ("state", "spool", "munge", "local"):
            (self.folder / name).mkdir(parents=True)
        for name in rig.names:
            (self.folder / "spool" / name).mkdir()
            (rig.folder / name / "local").mkdir()
        self._configure()
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        self._start_munge()
        self._start("launcher", "hostname ctl; exec slurmctld -D")
        for name in rig.names:
            bind = f"mount --bind {rig.folder / name / 'local'} {self.local}"
            self._start(name, f"hostname {name}; {bind}; exec slurmd -D -N {name}")
        self._wait_for_nodes()

    def allocate(self) -> dict[str, str]:
        """An allocation of all nodes; its environment."""
        count = len(self._rig.names)
        done = self._command("salloc", f"--nodes={count}", "--no-shell")
        job = done.stderr.partition("Granted job allocation ")[2].split()[0]
        return {**self.environment, "SLURM_JOB_ID": job, "SLURM_JOB_NODELIST": f"gpu[001-{count:03d}]"}

    def broadcast(self, environment: dict[str, str], file: Path) -> float:
        """Copy a file to a disk of each node of an allocation by Slurm's own means; the seconds it took."""
        began = time.monotonic()
        self._command("sbcast", f"--jobid={environment['SLURM_JOB_ID']}", "--force", file, self.local / file.name)
        return time.monotonic() - began

    def cancel(self, environment: dict[str, str]) -> None:
        """End an allocation."""
        self._command("scancel", environment["SLURM_JOB_ID"])

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command as a job on one node; a job that does not start fails after some seconds."""
        inside = ["nsenter", f"--net=/run/netns/{self._rig.tag}-launcher", "srun", "-N1", "--immediate=10", *command]
        environment = {**os.environ, **self.environment}
        return subprocess.run(inside, env=environment, check=False, capture_output=True, text=True, timeout=PATIENCE)

    def reasons(self) -> str:
        """Why nodes are out of service."""
        return self._command("sinfo", "-h", "-R", "-o", "%E").stdout

    def _configure(self) -> None:
        nodes = [
            f"NodeName={name} NodeAddr={self._rig.address(name)} CPUs=2 RealMemory=1000 State=UNKNOWN\n"
            for name in self._rig.names
        ]
        text = CONFIGURATION.format(controller=self._rig.address("launcher"), folder=self.folder)
        partition = "PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n"
        (self.folder / "slurm.conf").write_text(text + self._prolog + "".join(nodes) + partition)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        key = folder / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        for path in (folder, key):
            shutil.chown(path, "munge", "munge")
        folder.chmod(0o755)
        for parent in self.folder.parents:  # pytest's folders are closed to other users
            if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
        files = [f"--{name}={folder / name}" for name in ("pid-file", "log-file", "seed-file")]
        command = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--force", "--foreground"]
        options = [f"--socket={folder / 'sock'}", f"--key-file={key}", *files]
        process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
        self._stack.callback(_end, process)
        deadline = time.monotonic() + PATIENCE
        while not (folder / "sock").exists():
            assert process.poll() is None, "munged has ended"
            assert time.monotonic() < deadline, "munged does not start"
            time.sleep(0.05)

    def _start(self, machine: str, script: str) -> None:
        # Not by `ip netns exec`, which mounts a /sys without cgroups.
        enter = ["nsenter", f"--net=/run/netns/{self._rig.tag}-{machine}", "unshare", "--mount", "--uts"]
        log = (self.folder / f"{machine}.out").open("w")
        process = subprocess.Popen(
            [*enter, "sh", "-c", script], env={**os.environ, **self.environment}, stdout=log, stderr=log
        )
        log.close()
        self._stack.callback(_end, process)

    def _wait_for_nodes(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(subprocess.CalledProcessError):
                found = self._command("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").stdout.split()
                if len(found) == len(self._rig.names):
                    return
            logs = [path.read_text()[-500:] for path in self.folder.glob("*.log")]
            assert time.monotonic() < deadline, logs
            time.sleep(0.2)

    def _command(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        inside = ["nsenter", f"--net=/run/netns/{self._rig.tag}-launcher", *map(str, command)]
        environment = {**os.environ, **self.environment}
        return subprocess.run(inside, env=environment, check=True, capture_output=True, text=True, timeout=PATIENCE)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
