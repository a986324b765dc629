"""Roll-outs by `p2pmodel bootstrap` onto hosts in network namespaces, for the benchmarks."""

import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster_rig import ClusterRig, unavailable
from tests.support.processes import Finished

MIB = 1 << 20
FILES = 4


@dataclass(frozen=True)
class RolloutRig:
    """The hosts, a mirror on a machine of its own, and the snapshot in `source`. `options` go to each bootstrap."""

    rig: ClusterRig
    source: Path
    requests: Path
    options: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of the snapshot."""
        return sum(file.stat().st_size for file in self.source.iterdir())

    @property
    def copies(self) -> float:
        """Copies of the snapshot that the mirror has sent."""
        return sum(json.loads(line)["sent"] for line in self.requests.read_text().splitlines()) / self.size

    def bootstrap(self, *options: str, seconds: float = 1800.0) -> Finished:
        """Run a bootstrap to its end."""
        return self.rig.bootstrap(*self.options, *options).wait(seconds)


def fill(source: Path, size_mb: int, name: str = "model-{}.safetensors") -> None:
    """Write random files of `size_mb` MiB together, the same each time."""
    source.mkdir(exist_ok=True)
    for number in range(FILES):
        (source / name.format(number)).write_bytes(random.Random(number).randbytes(size_mb * MIB // FILES))


@contextmanager
def roll_outs(
    hosts: int, source: Path | None, size_mb: int, mbit: float = 0.0, mirror: float = 0.0
) -> Iterator[RolloutRig]:
    """The rig, with the snapshot in `source`, or one of `size_mb` MiB. Ends the benchmark where it cannot be had.

    `mbit`: the links of the hosts have this rate, which their settings declare, and so has the mirror to each of them;
    0: no limit. `mirror`: the mirror's own link has this rate, for all hosts together; 0: no limit.
    """
    if reason := unavailable():
        raise SystemExit(f"bootstrap: {reason}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="p2pl")))
        if source is None:
            source = folder / "source"
            fill(source, size_mb)
        rig = ClusterRig(folder / "rig", hosts, stack)
        endpoint, requests = rig.hub(source)
        options = ("--endpoint", endpoint)
        if mirror:
            rig.shape("mirror", mirror * 1e6 / 8)
        if mbit:
            rate = int(mbit * 1e6 / 8)
            for name in rig.names:
                rig.shape(name, rate)
                rig.settings(name, f"[swarm]\ndownload_limit = {rate}\nupload_limit = {rate}\n")
            config = folder / "p2pmodel.toml"
            limited = f'[[mirrors]]\nname = "near"\nendpoint = "{endpoint}"\nmax_bytes_per_second = {rate}\n'
            config.write_text(limited)
            options = ("--config", str(config))
        yield RolloutRig(rig, source, requests, ("--hosts", f"gpu[001-{hosts:03d}]", *options))
