"""HTTP proxies from the environment."""

from urllib.request import getproxies, proxy_bypass

from yarl import URL


def proxy_for(url: URL) -> str | None:
    """The proxy for `url` from the environment (HTTPS_PROXY, NO_PROXY, ...); None without one."""
    proxies = getproxies()
    if not proxies or proxy_bypass(url.host or ""):
        return None
    return proxies.get(url.scheme) or proxies.get("all")
