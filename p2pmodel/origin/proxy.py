"""HTTP proxies, as the environment names them."""

from urllib.request import getproxies, proxy_bypass

from yarl import URL


def proxy_for(url: URL) -> str | None:
    """The proxy that the environment (HTTPS_PROXY, NO_PROXY, ...) names for `url`."""
    proxies = getproxies()
    if not proxies or proxy_bypass(url.host or ""):
        return None
    return proxies.get(url.scheme) or proxies.get("all")
