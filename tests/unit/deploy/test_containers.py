"""Containerfile and compose.yaml: commands that exist, ports that are documented, tokens from files alone."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[3]
CONTAINERFILE = (ROOT / "Containerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXPOSED = {int(port) for line in re.findall(r"^EXPOSE (.*)$", CONTAINERFILE, re.MULTILINE) for port in line.split()}


@pytest.fixture(params=sorted(SERVICES))
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SERVICES[request.param]


def command(service: dict[str, Any]) -> list[str]:
    """The arguments of the command, with the default of each variable."""
    return [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", part) for part in service["command"]]


def listens(service: dict[str, Any]) -> list[tuple[str, int]]:
    found = re.findall(r"listen=([\d.]+):(\d+)", " ".join(command(service)))
    return [(address, int(port)) for address, port in found]


def test_each_role_has_one() -> None:
    assert sorted(SERVICES) == ["coordinator", "node", "seeder"]


def test_its_command_line_is_valid(service: dict[str, Any], parsed: Callable[[Sequence[str]], object]) -> None:
    parsed(command(service))


def test_it_listens_at_its_own_address(service: dict[str, Any]) -> None:
    assert {address for address, _port in listens(service)} == {service["networks"]["cluster"]["ipv4_address"]}


def test_its_ports_are_exposed_by_the_image_and_documented(service: dict[str, Any]) -> None:
    documents = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")))
    published = {int(each.rpartition(":")[2]) for each in service.get("ports", [])}
    ports = {port for _address, port in listens(service)}
    assert published <= ports <= EXPOSED
    assert [port for port in ports if not re.search(rf":{port}\b", documents)] == []


def test_a_published_port_is_reached_from_this_machine_alone(service: dict[str, Any]) -> None:
    assert all(each.startswith("127.0.0.1:") for each in service.get("ports", []))


def test_tokens_come_from_secret_files(service: dict[str, Any]) -> None:
    variables = [f"{name}={value}" for name, value in service.get("environment", {}).items()]
    named = re.findall(r"=/run/secrets/(\S+)", " ".join([*command(service), *variables]))
    assert sorted(set(named)) == sorted(service["secrets"])
    assert all(COMPOSE["secrets"][name]["file"].startswith("./secrets/") for name in named)
    assert all(re.fullmatch(r"P2PMODEL_\w+_FILE=/run/secrets/\S+", each) for each in variables)
    assert not re.search(r"http://[\d.:]+/", " ".join(command(service)))


def test_it_has_no_privileges_and_writes_to_its_volume_alone(service: dict[str, Any]) -> None:
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    [volume] = service["volumes"]
    assert volume.partition(":")[2] == "/var/lib/p2pmodel"
    assert volume.partition(":")[0] in COMPOSE["volumes"]


def test_the_image_runs_as_an_ordinary_user_and_holds_no_secret() -> None:
    stage = CONTAINERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", stage, re.MULTILINE)
    assert stage.index("\nUSER") < stage.index("\nENTRYPOINT")
    assert not re.search(r"(?i)^(ARG|ENV).*(token|secret|password)", CONTAINERFILE, re.MULTILINE)


def test_only_the_package_reaches_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", CONTAINERFILE, re.MULTILINE)
    assert {f"!{name}" for line in copied for name in line.split()} == {rule for rule in rules if rule[0] == "!"}
