"""The roll-outs of a coordinator, in memory, with an optional folder that outlives a restart.

Invariants, to re-check when editing:
1. For a snapshot, a set of nodes and gates there is at most one open roll-out: a second request gets the first.
2. A report that moves a node is on disk before it is answered: a node that ends then is not asked again. Numbers are
   saved with the next such report, or after `SAVE_EVERY` seconds.
3. A node that one open roll-out lists is unlisted in no other one of the same snapshot.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from p2pmodel.coordinator.rollout.nodes import (
    NodeReport,
    told_by_node,
    told_on_behalf,
    told_with_demand,
)
from p2pmodel.coordinator.rollout.rollout import Rollout, RolloutSpec, RolloutView, Transition
from p2pmodel.coordinator.server.credentials import Caller
from p2pmodel.coordinator.server.rollouts.folder import RolloutFolder
from p2pmodel.core import notes
from p2pmodel.core.content.names import RepoId, check_node_name
from p2pmodel.core.tasks import Version
from p2pmodel.errors import Forbidden, NotFound, P2PModelError, TooManyRequests

MAX_OPEN = 100
MAX_KEPT = 100
"""Roll-outs that are over and kept, the latest."""
SAVE_EVERY = 2.0
"""Seconds after which changed numbers are saved."""
GATHER = 0.1
"""Seconds in which reports are collected before they are written together."""
WORK_SHARE = 0.1
"""Part of the time that may go into writing: a roll-out of 10,000 nodes is a file of 4 MB."""
RETRY = 5.0
"""Seconds until a failed write is tried again."""


class Rollouts:
    """All roll-outs. `run` must run: it ends those that are late, and writes the folder.

    `clock` is monotonic, `wall` the seconds since 1970. `note` receives lines for the log.
    """

    def __init__(
        self,
        folder: RolloutFolder | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        note: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.version = Version()
        self._folder = folder
        self._clock = clock
        self._wall = wall
        self._note = note
        self._rollouts: dict[str, Rollout] = {}
        self._open: dict[tuple[str, str], list[Rollout]] = {}
        """Open roll-outs by repository and commit."""
        self._changed: set[str] = set()
        self._urgent = asyncio.Event()
        self._written: asyncio.Future[None] | None = None
        """Ends with the next write; None while no caller waits for it."""

    async def load(self) -> tuple[str, ...]:
        """Load the folder. Returns a line about each file that could not be used. Raises LocalResource."""
        if self._folder is None:
            return ()
        stored = await asyncio.to_thread(self._folder.load)
        for view in sorted(stored.views, key=lambda view: view.began):
            self._add(Rollout.restored(view, self._clock(), self._wall()))
        return stored.notes

    # -- reading ---------------------------------------------------------------------------------------------

    def views(self) -> list[RolloutView]:
        """All roll-outs, the latest first."""
        now = self._clock()
        return [rollout.view(now) for rollout in reversed(self._rollouts.values())]

    def view(self, ident: str) -> RolloutView:
        """One roll-out. Raises NotFound."""
        return self._find(ident).view(self._clock())

    def is_open(self, repo: RepoId, commit: str) -> bool:
        """Whether a roll-out of the snapshot takes reports."""
        return (str(repo), commit) in self._open

    # -- changes ---------------------------------------------------------------------------------------------

    async def create(self, spec: RolloutSpec, by: Caller) -> tuple[RolloutView, bool]:
        """Begin a roll-out, or find the open one of the same terms. Returns it, and whether it is new."""
        rollout = next((r for r in self._open.get(_key(spec), ()) if r.spec.same(spec)), None)
        is_new = rollout is None
        if rollout is None:
            if sum(map(len, self._open.values())) >= MAX_OPEN:
                raise TooManyRequests(f"{MAX_OPEN} roll-outs are open", hint="end one with 'p2pmodel rollout end'")
            rollout = Rollout(self._new_id(), spec, by.name, self._clock(), self._wall())
            self._add(rollout)
        else:
            _check_owner(rollout, by)
            rollout.replace_terms(spec, self._clock())
        await self._save(rollout)
        return rollout.view(self._clock()), is_new

    async def end(self, ident: str, by: Caller) -> RolloutView:
        """End a roll-out. Raises NotFound, and Forbidden for one of another publisher."""
        rollout = self._find(ident)
        _check_owner(rollout, by)
        rollout.end(self._clock())
        self._settle(rollout)
        await self._save(rollout)
        return rollout.view(self._clock())

    async def report(self, name: str, repo: RepoId, commit: str, report: NodeReport) -> tuple[str, ...]:
        """Take a node's own report on a snapshot. Returns the ids of the roll-outs that it went to."""
        check_node_name(name)
        taken = self._listing(name, self._open.get((str(repo), commit), []))
        for rollout in taken:
            if self._take(rollout, name, report, told_by_node):
                await self._save(rollout)
        return tuple(rollout.id for rollout in taken)

    async def report_on_behalf(self, ident: str, reports: Mapping[str, NodeReport]) -> RolloutView:
        """Take reports of a launcher, by the names of the nodes. Raises NotFound, and Conflict for a roll-out that is
        over; one that ends with some of them needs no more."""
        rollout, moved = self._find(ident), False
        for place, (name, report) in enumerate(reports.items()):
            if place and not rollout.open:
                break
            moved |= self._take(rollout, check_node_name(name), report, told_on_behalf)
        if moved:
            await self._save(rollout)
        return rollout.view(self._clock())

    def numbers(self, name: str, repo: RepoId, commit: str, report: NodeReport) -> None:
        """Take what came with a node's demand for leases. Raises InvalidInput for a bad name."""
        check_node_name(name)
        for rollout in self._listing(name, self._open.get((str(repo), commit), [])):
            rollout.take(name, report, self._clock(), self._wall(), told_with_demand)
            self._note_change(rollout)

    # -- the background --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """End late roll-outs, and write changes, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SAVE_EVERY):
                    await self._urgent.wait()
            await asyncio.sleep(GATHER)
            self._urgent.clear()
            for rollout in [each for of_one in self._open.values() for each in of_one]:
                if rollout.look(self._clock()):
                    self._settle(rollout)
            began = time.perf_counter()
            failed = await self._write()
            await asyncio.sleep(RETRY if failed else (time.perf_counter() - began) / WORK_SHARE)

    async def close(self) -> None:
        """Write what has changed, for the last time."""
        await self._write()

    # -- inside ----------------------------------------------------------------------------------------------

    def _take(self, rollout: Rollout, name: str, report: NodeReport, by: Transition) -> bool:
        """Take a report. Returns whether it must be saved before it is answered."""
        before = rollout.node(name)
        rollout.take(name, report, self._clock(), self._wall(), by)
        after = rollout.node(name)
        self._note_change(rollout)
        moved = before is None or after is None or (before.phase, before.gates) != (after.phase, after.gates)
        return moved or bool(before and after and before.preflight != after.preflight)

    def _note_change(self, rollout: Rollout) -> None:
        self._changed.add(rollout.id)
        if not rollout.open:
            self._settle(rollout)
        self.version.advance()

    async def _save(self, rollout: Rollout) -> None:
        """Return once the roll-out, as it is now, is on disk."""
        self._changed.add(rollout.id)
        self.version.advance()
        if self._folder is None:
            return
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
        self._urgent.set()
        await asyncio.shield(self._written)

    async def _write(self) -> bool:
        """Write what has changed; whether that failed."""
        waiting, self._written = self._written, None
        changed, self._changed = self._changed, set()
        if self._folder is None:
            return False
        try:
            for ident in changed:
                if rollout := self._rollouts.get(ident):
                    await asyncio.to_thread(self._folder.save, rollout.view(self._clock()))
        except P2PModelError as error:
            self._changed |= changed
            self._note(notes.error("rollout_unsaved", f"a roll-out cannot be saved: {error}"))
            if waiting is not None:
                waiting.set_exception(error)
                waiting.exception()  # retrieved, in case that no caller waits any more
            return True
        if waiting is not None:
            waiting.set_result(None)
        return False

    def _find(self, ident: str) -> Rollout:
        try:
            return self._rollouts[ident]
        except KeyError:
            raise NotFound(f"there is no roll-out {ident}", hint="'p2pmodel rollout ls' lists them") from None

    def _add(self, rollout: Rollout) -> None:
        self._rollouts[rollout.id] = rollout
        if rollout.open:
            self._open.setdefault(_key(rollout.spec), []).append(rollout)
        over = [each.id for each in self._rollouts.values() if not each.open]
        for ident in over[: len(over) - MAX_KEPT]:
            del self._rollouts[ident]
            if self._folder is not None:
                self._folder.remove(ident)

    def _settle(self, rollout: Rollout) -> None:
        """Take the roll-out, which is over, out of the open ones."""
        of_one = self._open.get(_key(rollout.spec), [])
        if rollout in of_one:
            of_one.remove(rollout)
            if not of_one:
                del self._open[_key(rollout.spec)]
        self._changed.add(rollout.id)
        self.version.advance()

    def _listing(self, name: str, rollouts: Iterable[Rollout]) -> list[Rollout]:
        """The `rollouts` that a report of the node goes to."""
        every = list(rollouts)
        return [each for each in every if each.lists(name)] or every

    def _new_id(self) -> str:
        while (ident := secrets.token_hex(4)) in self._rollouts:
            pass
        return ident


def _key(spec: RolloutSpec) -> tuple[str, str]:
    return str(spec.repo), spec.commit


def _check_owner(rollout: Rollout, by: Caller) -> None:
    if rollout.owner != by.name and not by.is_administrator:
        raise Forbidden(
            f"the roll-out {rollout.id} belongs to another publisher", hint="ask its publisher, or an administrator"
        )
