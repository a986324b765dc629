"""aiohttp applications and the long-running roles that serve them."""
