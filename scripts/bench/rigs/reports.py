"""Reports of the benchmarks: medians and quantiles as a table, and all figures as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Columns = Sequence[tuple[str, str, str]]
"""Key of a row, title, and format of the value."""


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the `ordered` values that is not exceeded by `share` of them."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(columns: Columns, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """A line for each (name, summary); `lost` nodes of a summary are appended."""
    lines = [f"{'':12}" + "".join(f"{title:>9}" for _key, title, _form in columns)]
    for name, row in rows:
        cells = "".join(f"{form.format(row[key]):>9}" for key, _title, form in columns)
        lines.append(f"{name:12}{cells}" + (f"  {row['lost']} LOST" if row["lost"] else ""))
    return "\n".join(lines)


def write_json(path: Path | None, report: Mapping[str, Any]) -> None:
    """Write `report` to `path`, if there is one. Infinity, which JSON lacks, becomes null."""
    if path:
        path.write_text(json.dumps(_finite(report), indent=1) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if value == math.inf else value
