"""The aiohttp application: hub endpoint, tracker, catalog."""
