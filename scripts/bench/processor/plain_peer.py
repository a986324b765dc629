"""A plain libtorrent client over TCP: `TORRENT FOLDER ADDRESS [--from PORT@ADDRESS] [--one-file]`.

With --from it downloads from that peer, and ends. Without, it seeds what is in FOLDER. It prints its port as JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import libtorrent as lt

START_SECONDS = 120.0
POLL_SECONDS = 0.02
"""Seconds between two looks at its state: each costs a tenth of a millisecond."""
_SETTINGS = {
    **dict.fromkeys(("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp"), False),
    **dict.fromkeys(("enable_outgoing_utp", "enable_incoming_utp"), False),
    "alert_mask": lt.alert.category_t.storage_notification | lt.alert.category_t.error_notification,
    "allow_multiple_connections_per_ip": True,
}


def main(options: argparse.Namespace) -> None:
    """Seed until stopped, or download."""
    session = lt.session({"listen_interfaces": f"{options.address}:0"} | _SETTINGS)
    params = lt.load_torrent_buffer(options.torrent.read_bytes(), {"max_buffer_size": 1 << 28})
    params.trackers, params.url_seeds, params.save_path = [], [], str(options.folder)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    sizes = [params.ti.files().file_size(index) for index in range(params.ti.files().num_files())]
    if options.one_file:
        smallest = min(filter(None, sizes))
        params.file_priorities = [4 if size == smallest else 0 for size in sizes]
    handle = session.add_torrent(params)
    if options.source is None:
        _wait(handle, "is_seeding")
        print(json.dumps({"port": session.listen_port()}), flush=True)
        while True:
            time.sleep(60)
    port, _, address = options.source.partition("@")
    handle.connect_peer((address, int(port)))
    _wait(handle, "is_finished")
    handle.flush_cache()
    until = time.monotonic() + START_SECONDS
    while not any(isinstance(alert, lt.cache_flushed_alert) for alert in session.pop_alerts()):
        if time.monotonic() > until:
            sys.exit(f"the files were not written within {START_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def _wait(handle: lt.torrent_handle, state: str) -> None:
    until = time.monotonic() + START_SECONDS
    while not getattr(handle.status(), state):
        if time.monotonic() > until:
            sys.exit(f"the torrent is not at {state} within {START_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("torrent", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("address")
    parser.add_argument("--from", dest="source")
    parser.add_argument("--one-file", action="store_true")
    main(parser.parse_args())
