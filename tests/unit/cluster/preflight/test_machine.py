"""What the operating system says of a machine."""

import socket
from pathlib import Path

import pytest

from p2pmodel.cluster.preflight import machine
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import RepoId
from p2pmodel.store.cache import HubCache


def test_cores_with_sha_instructions_are_counted(tmp_path: Path) -> None:
    intel = tmp_path / "intel"
    intel.write_text("processor: 0\nflags\t\t: fpu sha_ni avx\n\nprocessor: 1\nflags\t\t: fpu avx\n")
    assert machine.cores(intel)[1] == 1
    arm = tmp_path / "arm"
    arm.write_text("Features\t: fp asimd sha1 sha2\n")
    assert machine.cores(arm)[1] == 1
    assert machine.cores(tmp_path / "none")[1] == 0


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (
            "NVIDIA H200, 143771, 143000\\nNVIDIA H200, 143771, 70",
            [(143771 << 20, 143000 << 20), (143771 << 20, 70 << 20)],
        ),
        ("", []),
    ],
)
def test_gpus_are_those_that_the_driver_lists(tmp_path: Path, printed: str, expected: list[tuple[int, int]]) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{printed}\\n'\n" if printed else "#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    found = machine.gpus((str(program),))
    assert found is not None
    assert [(gpu.memory, gpu.free) for gpu in found] == expected
    assert machine.gpus((str(tmp_path / "none"),)) is None


def test_a_gpu_without_memory_of_its_own_has_the_machines(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA GB10, [N/A], [N/A]'\n")
    program.chmod(0o755)
    found = machine.gpus((str(program),))
    assert found is not None
    assert found[0].memory > 0


def test_a_port_of_another_program_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        settings = Settings(cache_dir=tmp_path, mirrors=(), swarm={"listen": f"127.0.0.1:{other.getsockname()[1]}"})
        assert machine.ports(settings) == ()  # on loopback no other machine connects
        assert machine._taken(*other.getsockname())


@pytest.mark.parametrize(
    ("private", "addresses"),
    [
        ({}, {}),
        ({"repos": ("org/*",)}, {"10.255.255.1:6883": False, "10.255.255.1:6884": False}),
        ({"source_port": 7004}, {"10.255.255.1:7004": True}),
    ],
)
def test_the_ports_of_private_swarms_are_looked_at_where_there_are_any(
    tmp_path: Path, private: dict[str, object], addresses: dict[str, bool]
) -> None:
    settings = Settings(cache_dir=tmp_path, mirrors=(), swarm={"listen": "10.255.255.1:6881"}, private=private)
    found = {each.address: each.fixed for each in machine.ports(settings) if "private" in each.use}
    assert found == addresses


def test_the_ports_of_further_engines_are_looked_at(tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path, mirrors=(), swarm={"listen": "10.255.255.1:7000", "engines": 3})
    found = {each.address: each.fixed for each in machine.ports(settings) if "engine" in each.use}
    assert found == {"10.255.255.1:7004": False, "10.255.255.1:7005": False}


def test_each_content_that_is_missing_counts_once(tmp_path: Path) -> None:
    weights = [ManifestFile(f"{n}.safetensors", 1000, "a" * 40, "b" * 64) for n in range(2)]
    manifest = Manifest(RepoId("org/model"), "c" * 40, (*weights, ManifestFile("config.json", 10, "d" * 40)))
    need = machine.need_of(HubCache(tmp_path), manifest)
    assert (need.size, need.missing, need.staged, need.weights) == (2010, 1010, 0, 2000)


def test_the_port_for_other_zones_is_looked_at_where_there_is_a_zone(tmp_path: Path) -> None:
    def found(**swarm: object) -> list[str]:
        settings = Settings(cache_dir=tmp_path, mirrors=(), swarm={"listen": "10.255.255.1:6881", **swarm})
        return [each.address for each in machine.ports(settings) if "zones" in each.use]

    assert found() == []
    assert found(zone="a") == ["10.255.255.1:6880"]
    assert found(zone="a", piece_port=7005) == ["10.255.255.1:7005"]
