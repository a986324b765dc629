"""All faults at all boundaries: what came of each, as a table, and whether that is right."""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import transformers

from p2pmodel.errors import P2PModelError
from p2pmodel.store.files import partial_file
from scripts.load_faults.cases import FAULTS, GONE, Fault, Site
from scripts.load_faults.model import Boundary, TinyModel, in_shards, one_by_one
from scripts.load_faults.processes import PROCESS_FAULTS
from scripts.load_faults.rig import HONEST, IMPATIENT, PATIENT, Hang, Node, Rig, is_clear, verified_by_the_hubs_client
from scripts.load_faults.sources import Torrents
from tests.support.fake_hub import FakeHub

RECOVERED = "recovered"


@dataclass
class Outcome:
    """What came of one fault at one boundary. `ended`: RECOVERED, or the code of the error."""

    fault: str
    boundary: str
    ended: str = ""
    line: str = ""
    held: int = 0
    """Bytes in the cache after it."""
    came_again: int = 0
    """Bytes that the next load took from its sources although the cache had them."""
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Matrix:
    """Runs cases. `site` must be open."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def case(self, fault: Fault, boundary: Boundary) -> Outcome:
        """The load with the fault, and the next one without."""
        outcome, began = Outcome(fault.name, str(boundary)), time.monotonic()
        with self._site.rig.empty_cache(small=fault.on_small_disk) as cache:
            node = Node(fault.of(self._site), cache)
            node.patience = IMPATIENT if GONE in fault.codes else PATIENT
            await self._with_fault(fault, boundary, node, outcome)
            node.patience = PATIENT
            outcome.seconds = time.monotonic() - began
            await self._afterwards(fault, node, outcome)
        outcome.wrong += self._site.rig.left_behind()
        return outcome

    async def _with_fault(self, fault: Fault, boundary: Boundary, node: Node, outcome: Outcome) -> None:
        try:
            loaded = await fault.run(self._site, boundary, node)
        except P2PModelError as error:
            outcome.ended, outcome.line = error.code, str(error)
            if error.code not in fault.codes:
                outcome.wrong.append(f"it may not end so: {error}")
            if not is_clear(error):
                outcome.wrong.append(f"its line is not clear: {error}")
            if node.is_visible():
                outcome.wrong.append("clients see the snapshot")
        except Hang as error:
            outcome.ended = "hang"
            outcome.wrong.append(str(error))
        except Exception as error:  # noqa: BLE001 - the finding of a case
            outcome.ended = "other"
            outcome.wrong.append(f"{type(error).__name__}: {error}")
        else:
            outcome.ended = RECOVERED
            if fault.codes and not fault.recovers:
                outcome.wrong.append("it ended with a model, which it may not")
            outcome.wrong += [f"wrong tensor: {name}" for name in node.wrong_tensors(loaded)]

    async def _afterwards(self, fault: Fault, node: Node, outcome: Outcome) -> None:
        """The next load must be right, and take only what the cache lacked."""
        outcome.held = node.held()
        try:
            loaded = await fault.resume(self._site, node)
        except (P2PModelError, Hang) as error:
            outcome.wrong.append(f"the next load failed: {error}")
            return
        outcome.wrong += [f"wrong tensor afterwards: {name}" for name in node.wrong_tensors(loaded)]
        outcome.came_again = max(0, outcome.held - node.results[-1].progress.from_cache)
        if fault.keeps and outcome.came_again:
            outcome.wrong.append(f"{outcome.came_again} bytes that the cache had came again")
        if found := await verified_by_the_hubs_client(node, self._honest_of(fault)):
            outcome.wrong.append(f"hf cache verify: {found}")

    def _honest_of(self, fault: Fault) -> FakeHub:
        return self._site.honest if fault.layout == "mirror" else self._site.honest_single


async def opened(stack: AsyncExitStack) -> Site:
    """Models, torrent and mirrors."""
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # The tiny model is smaller than what is recorded at a time.
    stack.callback(setattr, partial_file, "RECORD_EVERY", partial_file.RECORD_EVERY)
    partial_file.RECORD_EVERY = 1
    rig = Rig(stack.enter_context(ExitStack()))
    source = in_shards(rig.folder / "sharded")
    sharded = TinyModel.of(source)
    single = TinyModel.of(one_by_one(source, rig.folder / "single"))
    honest = await stack.enter_async_context(FakeHub(sharded.snapshot, host=HONEST))
    honest_single = await stack.enter_async_context(FakeHub(single.snapshot, host=HONEST))
    return Site(rig, sharded, single, Torrents(single.snapshot, rig.folder), honest, honest_single)


def chosen(fault: Fault, site: Site, every: int) -> list[Boundary]:
    """The boundaries of a fault. A torrent has no header of its own: each of its files ends one tensor."""
    found = fault.of(site).boundaries
    if fault.layout != "mirror":
        found = [each for each in found if each.after != "the header"]
    return [*found[:-1:every], found[-1]]


async def outcomes(options: argparse.Namespace) -> list[Outcome]:
    """Run the cases that the options choose."""
    found: list[Outcome] = []
    until = time.monotonic() + 60 * options.minutes
    async with AsyncExitStack() as stack:
        site = await opened(stack)
        matrix = Matrix(site)
        for fault in FAULTS:
            if options.only not in fault.name:
                continue
            if fault.on_small_disk and site.rig.disk is None:
                print(f"{fault.name}: left out, a small disk needs root", flush=True)
                continue
            number, parts = options.part
            boundaries = chosen(fault, site, options.every)[number - 1 :: parts]
            done: list[Outcome] = []
            for boundary in boundaries:
                if time.monotonic() > until:
                    break
                done.append(await matrix.case(fault, boundary))
            found += done
            print(row(fault.name, done, len(boundaries)), flush=True)
            show_wrong(done)
    return found


def row(name: str, done: Sequence[Outcome], planned: int) -> str:
    """One line of the table."""
    ends = Counter(outcome.ended for outcome in done)
    shown = ", ".join(f"{end} {count}" for end, count in sorted(ends.items()))
    slowest = max((outcome.seconds for outcome in done), default=0.0)
    right = sum(not outcome.wrong for outcome in done)
    return f"{name:32} {len(done):4} of {planned:3}  right {right:4}  slowest {slowest:5.1f} s  {shown}"


def show_wrong(done: Iterable[Outcome]) -> None:
    """Print what is wrong, a line for each case."""
    for outcome in done:
        if outcome.wrong:
            print(f"  wrong at {outcome.boundary}: {'; '.join(outcome.wrong)[:300]}", flush=True)


def run(options: argparse.Namespace) -> int:
    """Run everything, print the table, and return the exit code."""
    began = time.monotonic()
    found = asyncio.run(outcomes(options))
    if options.processes:
        for fault in PROCESS_FAULTS:
            if options.only in fault.name:
                done = [Outcome(**each) for each in fault.run(options.processes)]
                found += done
                print(row(fault.name, done, options.processes), flush=True)
                show_wrong(done)
    wrong = sum(bool(outcome.wrong) for outcome in found)
    print(f"{len(found)} cases in {time.monotonic() - began:.0f} s, {wrong} wrong")
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(outcome) for outcome in found], indent=1) + "\n")
    return 1 if wrong or not found else 0
