"""A libtorrent client with libtorrent's default settings: `TORRENT FOLDER ADDRESS`. Prints a line once it seeds."""

import json
import sys
import time

import libtorrent as lt

FLUSH_SECONDS = 30.0


def main(torrent: str, folder: str, address: str) -> None:
    """Download, print a line once the files are written, and seed until stopped."""
    only_our_tracker = dict.fromkeys(("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp"), False)
    alerts = {"alert_mask": lt.alert.category_t.storage_notification}
    session = lt.session({"listen_interfaces": f"{address}:6881"} | only_our_tracker | alerts)
    params = lt.load_torrent_file(torrent)
    params.save_path = folder
    handle = session.add_torrent(params)
    while not handle.status().is_seeding:
        time.sleep(0.05)
    session.pop_alerts()
    handle.flush_cache()  # a seed may hold unwritten data in memory
    until = time.monotonic() + FLUSH_SECONDS
    while not any(isinstance(alert, lt.cache_flushed_alert) for alert in session.pop_alerts()):
        if time.monotonic() > until:
            sys.exit(f"the files were not written within {FLUSH_SECONDS:.0f} s")
        time.sleep(0.05)
    print(json.dumps({"complete": True}), flush=True)
    while True:
        time.sleep(60)


if __name__ == "__main__":
    main(*sys.argv[1:])
