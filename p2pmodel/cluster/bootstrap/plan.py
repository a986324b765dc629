"""What one bootstrap is to do: hosts, snapshot, services, and when it has succeeded. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from p2pmodel.cluster.carried import CarriedPackage, CarriedSettings
from p2pmodel.cluster.launcher import HostLook, RemoteHost
from p2pmodel.config.checks import check_url
from p2pmodel.coordinator.rollout.rollout import ALL, MinReady
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import InvalidInput, LocalResource

Stage = Literal["waiting", "passed", "starting", "fetching", "ready", "loading", "loaded", "answered", "failed"]
"""`passed`: the preflight has no failed check; `ready`: all files are verified and visible; `loaded`: the model was on
the device, too; `answered`: and gave its first token."""
COORDINATOR_PORT = 6969
SEEDER_PORT = 6970
"""Port of a seeder's HTTP source for leaseholders."""

SAMPLE = 4 << 20
"""Bytes that a host reads from a mirror to measure it."""
SAMPLES = 0.01
"""Most copies of the snapshot in the samples of all hosts together."""

MISSING = "p2pmodel is not installed there"
INSTALL = "install it, carry it along with --install, or name it with --command"


@dataclass(frozen=True, slots=True)
class CoordinatorPlace:
    """Where the coordinator is: at a URL, where it runs already, or on a host, where it is started. `fixed`: on no
    other host."""

    host: str = ""
    url: str = ""
    fixed: bool = True

    @classmethod
    def parse(cls, text: str) -> "CoordinatorPlace":
        """`http://HOST:PORT`, or the name of a host. Raises InvalidInput."""
        if "://" not in text:
            return cls(host=text)
        try:
            return cls(url=check_url(text))
        except ValueError as error:
            raise InvalidInput(f"--coordinator: {error}") from None


@dataclass(frozen=True, slots=True)
class BootstrapPlan:
    """One bootstrap. `environment`: settings of the nodes, without secrets; `command`: p2pmodel on the hosts, empty to
    find it there; `seeders`: how many hosts publish the snapshot, and keep seeding it."""

    ref: Reference
    manifest: Manifest
    hosts: tuple[str, ...]
    coordinator: CoordinatorPlace
    seeders: int = 1
    fanout: int = 32
    min_ready: MinReady = ALL
    timeout: float = 1800.0
    load: bool = False
    prompt: str | None = None
    """Prompt for the loaded model; the first token of the answer is the last gate. None: it is only loaded."""
    serve: str = ""
    """Shell command to run on each host once it has all that is asked for, and to keep running."""
    command: tuple[str, ...] = ()
    package: CarriedPackage | None = None
    """What to install on the hosts."""
    settings: CarriedSettings | None = None
    """Settings of the nodes that are more than an environment variable holds, or secret."""
    environment: Mapping[str, str] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()
    """Hosts of the cluster that this bootstrap leaves alone; one of them may have the coordinator."""

    def __post_init__(self) -> None:
        if self.needed > len(self.hosts):
            raise InvalidInput(
                f"{self.min_ready} hosts cannot be ready of {len(self.hosts)}", hint="choose a smaller --min-ready"
            )

    @property
    def needed(self) -> int:
        """The number of hosts that must be ready."""
        return self.min_ready.count(len(self.hosts))

    @property
    def last_stage(self) -> Stage:
        """The stage in which a host has all that is asked for."""
        if not self.load:
            return "ready"
        return "loaded" if self.prompt is None else "answered"

    @property
    def measuring(self) -> tuple[str, ...]:
        """The hosts that read a sample of the mirrors: all of them, as long as the samples are a small part of a copy,
        else those that mirror if the others do not."""
        if self.coordinator.url:
            return ()
        few = len(self.hosts) * SAMPLE <= self.manifest.total_size * SAMPLES
        return self.hosts if few else self.hosts[: self.seeders]

    async def command_on(self, host: RemoteHost, look: HostLook) -> tuple[str, ...]:
        """The command for p2pmodel on a host, which gets the package before. Raises LocalResource without one."""
        if self.package is not None:
            await self.package.onto(host, look)
            return self.package.command(look)
        command = self.command or look.p2pmodel
        if not command:
            raise LocalResource(f"{host.name}: {MISSING}", hint=INSTALL)
        return command

    async def environment_on(self, host: RemoteHost, look: HostLook) -> dict[str, str]:
        """The settings of a node there, which gets the files with them before. Raises LocalResource."""
        carried = {} if self.settings is None else await self.settings.onto(host, look)
        return {**self.environment, **carried}

    def plain(self) -> dict[str, Any]:
        """The snapshot and its size, for the report."""
        return {"repo": str(self.ref.repo), "commit": self.manifest.commit, "size": self.manifest.total_size}
