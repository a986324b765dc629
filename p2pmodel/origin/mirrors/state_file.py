"""State of the mirrors between runs: a small JSON file, replaced atomically.

`mirrors.json` holds, by endpoint, the estimates with weight and age, and the rest of a quarantine. Of two concurrent
processes each records its own mirrors; the last record of a mirror wins. Times in it are calendar times, and the clock
may have been set meanwhile: a time in the future counts as now, so that nothing lasts longer than it was meant to.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pmodel.core.files.private_files import make_folders, private_folder, remove_leftovers, write_private
from p2pmodel.core.plain_json import parse_json
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.mirrors.estimates import Estimate, Quality
from p2pmodel.origin.mirrors.mirror import Mirror

FILE = "mirrors.json"
_VERSION = 1
_MOST_WEIGHT = 10.0
_LONGEST = 86400.0


def recall(folder: Path, mirrors: Sequence[Mirror], clock: Clock) -> None:
    """Restore `mirrors` from the record of an earlier run; entries that cannot be read are skipped. Blocking.

    Raises LocalResource if other users have access to `folder`.
    """
    if folder.exists():
        private_folder(folder)
        remove_leftovers(folder)
    known = _read(folder / FILE)
    to_clock = clock.now() - clock.date().timestamp()
    for mirror in mirrors:
        entry = known.get(mirror.settings.endpoint)
        if isinstance(entry, dict):
            _apply(entry, mirror, clock.now(), to_clock)


def remember(folder: Path, mirrors: Sequence[Mirror], clock: Clock) -> None:
    """Record the state of `mirrors`, and keep the record of others. Raises OSError. Blocking."""
    to_calendar = clock.date().timestamp() - clock.now()
    mine = {m.settings.endpoint: _entry(m, clock.now(), to_calendar) for m in mirrors}
    make_folders(folder)
    record = {"version": _VERSION, "mirrors": _read(folder / FILE) | mine}
    write_private(folder / FILE, f"{json.dumps(record, indent=1)}\n".encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    known = record.get("mirrors") if isinstance(record, dict) and record.get("version") == _VERSION else None
    return known if isinstance(known, dict) else {}


def _entry(mirror: Mirror, now: float, to_calendar: float) -> dict[str, Any]:
    quality, health = mirror.quality, mirror.health
    return {
        "connect": _plain(quality.connect, to_calendar),
        "first_byte": _plain(quality.first_byte, to_calendar),
        "rate": _plain(quality.rate, to_calendar),
        "slow": health.slow,
        "corruptions": health.corruptions,
        "quarantine": round(max(health.quarantined_until - now, 0.0), 3),
        "recorded": round(now + to_calendar, 3),
        "reason": mirror.reason,
    }


def _plain(estimate: Estimate, to_calendar: float) -> list[float]:
    return [round(estimate.value, 6), round(estimate.weight, 3), round(estimate.at + to_calendar, 3)]


def _apply(entry: Mapping[str, Any], mirror: Mirror, now: float, to_clock: float) -> None:
    estimates = {key: _estimate(entry.get(key), now, to_clock) for key in ("connect", "first_byte", "rate")}
    corruptions, recorded = entry.get("corruptions"), min(_number(entry.get("recorded")) + to_clock, now)
    left = min(_number(entry.get("quarantine")), _LONGEST) - (now - recorded)
    mirror.recalled(
        Quality(**estimates),
        slow=entry.get("slow") is True,
        corruptions=min(corruptions, 16) if isinstance(corruptions, int) and corruptions > 0 else 0,
        quarantined_until=now + left if left > 0 else 0.0,
        reason=str(entry.get("reason") or "")[:200],
    )


def _estimate(plain: object, now: float, to_clock: float) -> Estimate:
    if not isinstance(plain, list) or len(plain) != 3:
        return Estimate()
    value, weight, at = (_number(item) for item in plain)
    if value < 0 or weight <= 0:
        return Estimate()
    return Estimate(value, min(weight, _MOST_WEIGHT), min(at + to_clock, now))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if math.isfinite(value) else 0.0
