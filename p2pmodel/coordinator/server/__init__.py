"""The coordinator as an aiohttp application: tracker, catalog, leases, assembly."""
