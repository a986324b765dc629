"""The coordinator and the seeders of a bootstrap."""

import json

from p2pmodel.cluster.bootstrap.services import seeder_progress


def test_the_progress_of_a_seeder_is_the_last_in_its_log() -> None:
    lines = [
        "mirroring begins",
        json.dumps({"phase": "mirroring", "done": 5_000_000, "total": 20_000_000, "download_rate": 1_000_000}),
        "a warning",
    ]
    assert seeder_progress("\n".join(lines)) == "mirroring 25% of 20.0 MB, 1.0 MB/s"
    assert seeder_progress('{"phase": "finding", "done": 0, "total": 0, "download_rate": 0}') == "finding"
    assert seeder_progress('"done": 5}\nno json') == "starting"
