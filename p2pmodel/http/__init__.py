"""Parts of aiohttp servers that all HTTP services share: listening, limits, access, errors, ranges, OpenAPI."""
