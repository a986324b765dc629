"""aiohttp server plumbing shared by all HTTP services: listening, limits, access, errors, ranges, OpenAPI."""
