"""The last check before bytes move: whether other machines reach the port for peers of every daemon."""

from p2pmodel.cluster.bootstrap.fan_out import FanOut
from p2pmodel.cluster.bootstrap.plan import BootstrapPlan
from p2pmodel.cluster.bootstrap.roster import Roster
from p2pmodel.cluster.launcher import RemoteHost
from p2pmodel.core.content.names import printable
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import P2PModelError, Unavailable

REACH_SECONDS = 120.0


async def check_reach(plan: BootstrapPlan, coordinator: str, fan_out: FanOut, roster: Roster) -> None:
    """Connect from the coordinator's host ("": from the first one) to each daemon; those not reached have failed."""
    hosts = [entry for entry in roster.at("starting") if entry.peer]
    others = {entry.peer: entry for entry in hosts if not ListenAddress.parse(entry.peer).loopback}
    if not others:
        return
    unreached: dict[str, str] = {}
    observer = coordinator or hosts[0].name

    async def connect(host: RemoteHost) -> None:
        look = await host.look()
        command = [*(await plan.command_on(host, look)), "doctor", "--json"]
        done = await host.run([*command, *(f"--reach={peer}" for peer in others)], timeout=REACH_SECONDS)
        for check in parse_json(done.out)["checks"]:
            peer = str(check["found"]).partition(": ")[0]
            if check["name"] == "reach" and check["outcome"] == "failed" and peer in others:
                unreached[peer] = printable(str(check["found"]), 200)

    try:
        await fan_out.on(observer, connect, within=REACH_SECONDS, what="the check of ports")
    except (P2PModelError, ValueError, KeyError, TypeError) as error:
        roster.notes.append(f"{observer} could not check the ports of the others: {printable(str(error), 200)}")
    for peer, reason in unreached.items():
        others[peer].failed(
            Unavailable(f"{others[peer].name}: {observer} cannot connect to {reason}", hint="open that port")
        )
