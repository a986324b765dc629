"""One simulated run, in steps of time."""

import random
import time
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from p2pmodel.coordinator.leases.crossings import Crossings, ZonedLeases
from p2pmodel.coordinator.leases.leases import Leases
from scripts.bench.simulation.case import Case
from scripts.bench.simulation.connections import Connections
from scripts.bench.simulation.coordination import Coordination
from scripts.bench.simulation.lease_pulls import LeasePulls
from scripts.bench.simulation.links import fair_rates
from scripts.bench.simulation.piece_tables import PieceTables
from scripts.bench.simulation.tracker import SimulatedTracker

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MOST_BOUNDS, LEAST_LIMIT = 12, 120.0
"""A run is abandoned after so many bounds, but not before so many seconds."""
_HELP_EVERY = 0.25
_VARIES_EVERY = 1.0
"""Seconds for which a flow keeps its share of a link."""


class SimulatedRun:
    """A swarm of `case.nodes` nodes. The seeder comes after them, then the mirror."""

    def __init__(self, case: Case) -> None:
        self._case = case
        layout = case.layout()
        count = case.nodes
        self._seeder, self._mirror = count, count + 1
        rng = np.random.default_rng(case.seed)
        self.piece_length, self.pieces = layout.piece_length, layout.piece_count
        sizes = [layout.piece_range(piece).length for piece in range(self.pieces)]
        self.tables = PieceTables(count + 2, sizes, rng)
        self.tables.fill(self._seeder)
        self._edges = Connections(count + 2, self.tables, self.piece_length, rng)
        self._pulls = LeasePulls(self.tables.sizes, case.delays.request, rng)
        self._tracker = SimulatedTracker(case.seed)
        self._crosses = case.crossings and case.zones > 1
        self._coordination = Coordination(
            ZonedLeases(Leases(self.pieces, case.size), Crossings(self.pieces, random.Random(case.seed))),
            *(self.piece_length, case.delays.message, self.tables.scarce),
            held=self.tables.held if self._crosses else None,
        )
        self.up = np.array([*(link.up for link in case.links), case.seeder, case.mirror])
        self.down = np.array([*(link.down for link in case.links), 1.0, 1.0])
        self.sent, self.received = np.zeros(count + 2), np.zeros(count + 2)
        self.crossed = np.zeros(case.zones)
        """Bytes into each zone."""
        self._zones = np.array([case.zone_of(node) for node in range(count + 2)])
        self._alive = np.ones(count + 2, dtype=np.bool_)
        self._ready = np.full(count, np.inf)
        self._received_then = np.zeros(count)
        self._announced = np.zeros(count + 2, dtype=np.bool_)
        self._rng = rng
        self._dialled: deque[tuple[float, int, int]] = deque()
        self._checked: deque[tuple[float, Ints, Ints]] = deque()
        self._pulled: deque[tuple[float, Ints, Ints]] = deque()
        self._killed = 0
        self.now = 0.0
        self.step_seconds = self._step_seconds()
        self._start()

    def _step_seconds(self) -> float:
        """A piece takes several steps over one of a node's connections, and more than one over a free link."""
        quickest = self.piece_length / max(self.up.max(), self.down.max())
        return float(min(quickest * min(1.0, self._case.nodes / 64), 0.05))

    def _start(self) -> None:
        case = self._case
        if not case.leases:
            self._tracker.plan(self._seeder, 0.0)
        for node in range(case.nodes):
            when = float(self._rng.uniform(0, case.delays.start))
            self._tracker.plan(node, when)
            if case.leases:
                self._coordination.join(node, when, case.zone_of(node))

    # -- the run ---------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Run until every live node is complete. Returns every figure."""
        began, cpu = time.monotonic(), time.process_time()
        limit = max(LEAST_LIMIT, MOST_BOUNDS * self._case.bound)
        next_help = next_variation = 0.0
        while self._pending() and self.now < limit:
            self._announce()
            self._show()
            if self._case.leases:
                self._lease()
            self._edges.request()
            if self.now >= next_help:
                self._edges.help_out()
                next_help = self.now + _HELP_EVERY
            if self.now >= next_variation:
                self._edges.vary()
                next_variation = self.now + _VARIES_EVERY
            self._move()
            self._maybe_kill()
            self.now += self.step_seconds
        return self._figures(time.monotonic() - began, time.process_time() - cpu)

    def _pending(self) -> bool:
        alive = self._alive[: self._case.nodes]
        return bool(np.isinf(self._ready[alive]).any())

    def _announce(self) -> None:
        case = self._case
        for node in self._tracker.due(self.now):
            if not self._alive[node]:
                continue
            peers = self._tracker.announce(
                node,
                self.now,
                left=int(self.tables.missing[node]) * self.piece_length,
                zone=case.zone_of(node),
                role="" if not case.leases else "crossing" if self._crosses else "leaseholder",
                event="" if self._announced[node] else "started",
            )
            self._announced[node] = True
            self._dialled += [(self.now + case.delays.dial, node, other) for other in peers]
        while self._dialled and self._dialled[0][0] <= self.now:
            _, one, other = self._dialled.popleft()
            if self._alive[one] and self._alive[other]:
                self._edges.connect(one, other)

    def _show(self) -> None:
        """Checked pieces reach the neighbours after a delay, and pulled pieces the coordinator."""
        while self._checked and self._checked[0][0] <= self.now:
            _, nodes, pieces = self._checked.popleft()
            alive = self._alive[nodes]
            self._edges.show(nodes[alive], pieces[alive])
        while self._pulled and self._pulled[0][0] <= self.now:
            _, nodes, pieces = self._pulled.popleft()
            for node, piece in zip(nodes.tolist(), pieces.tolist(), strict=True):
                self.tables.keep(node, piece)
                self._coordination.pulled(node, piece, int(self.tables.sizes[piece]), self.now)

    def _lease(self) -> None:
        pulls, source = self._pulls, self._seeder if self._alive[self._seeder] else self._mirror
        begun = self._coordination.step(self.now)
        lacking = [(source if other is None else other, *rest) for *rest, other in begun if self._lacks(*rest)]
        pulls.begin([(other, node, piece) for other, node, piece in lacking if self._alive[other]], self.now)
        for node, piece, _ in begun:
            if not self._lacks(node, piece):
                self._coordination.stopped(node, piece)
        if len(pulls.piece):
            needed = self.tables.is_scarce(pulls.target, pulls.piece)
            self._stop(needed)

    def _lacks(self, node: int, piece: int) -> bool:
        return bool(self.tables.is_scarce(np.array([node]), np.array([piece]))[0])

    def _stop(self, needed: NDArray[np.bool_]) -> None:
        for place in np.flatnonzero(~needed):
            self._coordination.stopped(int(self._pulls.target[place]), int(self._pulls.piece[place]))
        self._pulls.keep(needed)

    def _move(self) -> None:
        edges, places = self._edges.flowing(), self._pulls.flowing(self.now)
        sources = np.concatenate([self._edges.source[edges], self._pulls.source[places]])
        targets = np.concatenate([self._edges.target[edges], self._pulls.target[places]])
        weights = np.concatenate([self._edges.weight[edges], self._pulls.weight[places]])
        moved = fair_rates(sources, targets, weights, self.up, self.down) * self.step_seconds
        moved[len(edges) :] = np.minimum(moved[len(edges) :], self._pulls.rest(places))
        count = len(self.up)
        self.sent += np.bincount(sources, moved, count)
        self.received += np.bincount(targets, moved, count)
        crossing = self._zones[sources] != self._zones[targets]
        self.crossed += np.bincount(self._zones[targets[crossing]], moved[crossing], self._case.zones)
        nodes, pieces = self._edges.carry(edges, moved[: len(edges)], self.step_seconds)
        holders, pulled = self._pulls.carry(places, moved[len(edges) :])
        self._whole(np.concatenate([nodes, holders]), np.concatenate([pieces, pulled]))
        if len(holders):
            self._pulled.append((self.now + self._case.delays.check, holders, pulled))

    def _whole(self, nodes: Ints, pieces: Ints) -> None:
        nodes, pieces = self.tables.complete(nodes, pieces)
        if not len(nodes):
            return
        delays = self._case.delays
        self._checked.append((self.now + self.step_seconds + delays.check + delays.spread, nodes, pieces))
        done = nodes[self.tables.missing[nodes] == 0]
        for node in np.unique(done).tolist():
            if np.isinf(self._ready[node]):
                self._ready[node] = self.now + self.step_seconds + delays.check + delays.publish
                self._received_then[node] = self.received[node]
                self._coordination.leave(node, self.now)

    # -- kills -----------------------------------------------------------------------------------------------

    def _maybe_kill(self) -> None:
        case, kill = self._case, self._case.kill
        if kill is None or kill.done:
            return
        got = np.minimum(self.received[: case.nodes], case.size).sum()
        if got < kill.at * case.size * case.nodes:
            return
        kill.done = True
        if "seeder" in kill.roles:
            self._die(self._seeder)
            self._coordination.near, self._coordination.can_pull = False, case.mirror > 0
            self._coordination.all_changed(self.now)
        unfinished = np.flatnonzero(np.isinf(self._ready))
        dying = min(len(unfinished), round(kill.peers * case.nodes))
        for node in self._rng.choice(unfinished, dying, replace=False).tolist():
            self._die(node)
            self._killed += 1

    def _die(self, node: int) -> None:
        self._alive[node] = False
        self._edges.leave(node)
        self._coordination.leave(node, self.now)
        self._stop((self._pulls.source != node) & (self._pulls.target != node))

    # -- the figures -----------------------------------------------------------------------------------------

    def _figures(self, seconds: float, cpu: float) -> dict[str, Any]:
        case, cost = self._case, self._coordination.cost
        ready = self._ready[np.isfinite(self._ready)]
        received = self._received_then[np.isfinite(self._ready)]
        degrees = self._edges.degree[: case.nodes]
        return {
            "nodes": case.nodes,
            "ready": sorted(ready.tolist()),
            "ready_by_node": {f"peer{n + 1}": float(at) for n, at in enumerate(self._ready) if np.isfinite(at)},
            "killed": self._killed,
            "failures": [],
            "unfinished": int(np.isinf(self._ready[self._alive[: case.nodes]]).sum()),
            "seeder_sent": float(self.sent[self._seeder] / case.size),
            "mirror_sent": float(self.sent[self._mirror] / case.size),
            "crossed": float(self.crossed.max() / case.size),
            "crossed_all": float(self.crossed.sum() / case.size),
            "received": float(received.mean() / case.size) if len(received) else 0.0,
            "received_most": float(received.max(initial=0) / case.size),
            "pieces": self.pieces,
            "piece_length": self.piece_length,
            "degree_mean": float(degrees.mean()),
            "degree_most": int(degrees.max()),
            "seeder_links": int(self._edges.degree[self._seeder]),
            "coordinator": {
                "tells": cost.tells,
                "grants": cost.grants,
                "leased": cost.leased,
                "tell_seconds": cost.tell_seconds,
                "grant_seconds": cost.grant_seconds,
                "load": (cost.tell_seconds + cost.grant_seconds) / max(self.now, 1e-9),
            },
            "simulated_seconds": self.now,
            "wall_seconds": seconds,
            "cpu_seconds": cpu,
        }
