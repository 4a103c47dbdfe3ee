# SPDX-License-Identifier: Apache-2.0
"""Which proxy the environment names for a URL: HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as Go's programs read them.

NO_PROXY is a list, separated by commas: a host name (and all below it), .name (only those below it), an address, a
network (10.0.0.0/8), each with or without :port, or * for everything. What is on this machine never goes through a
proxy.
"""

from __future__ import annotations

import os

from pyrun.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    Address = IPv4Address | IPv6Address

PORTS = {"http": 80, "https": 443}


def proxy_for(scheme: str, host: str, port: int) -> str:
    """The URL of the proxy for a request, "" for none. Raises UsageError for a proxy that cannot be used."""
    text = _variable(f"{scheme}_proxy")
    if not text or _is_local(host) or _excluded(host, port):
        return ""
    if "://" not in text:
        text = f"http://{text}"
    kind = text.partition("://")[0].lower()
    if kind not in PORTS:
        raise UsageError(
            f"{scheme}_proxy={kind}://…", "only http and https proxies are supported", hint="unset it, or NO_PROXY"
        )
    return text


def _variable(name: str) -> str:
    """The variable in either case. HTTP_PROXY of a CGI program is a request's header (CVE-2016-5385): not there."""
    if name == "http_proxy" and os.environ.get("REQUEST_METHOD"):
        return os.environ.get(name, "")
    return os.environ.get(name) or os.environ.get(name.upper()) or ""


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def _excluded(host: str, port: int) -> bool:
    address = _address(host)
    for item in _variable("no_proxy").lower().split(","):
        item = item.strip()
        if item == "*":
            return True
        if item and _fits(item, host.lower(), address, port):
            return True
    return False


def _fits(item: str, host: str, address: Address | None, port: int) -> bool:
    import ipaddress

    if "/" in item:
        try:
            return address is not None and address in ipaddress.ip_network(item, strict=False)
        except ValueError:
            return False
    name, colon, wanted = item.rpartition(":")
    if colon and wanted.isascii() and wanted.isdecimal() and (":" not in name or name.endswith("]")):
        if int(wanted) != port:
            return False
        item = name
    item = item.strip("[]").removeprefix("*")
    if address is not None:
        return _address(item) == address
    return host.endswith(item) if item.startswith(".") else host == item or host.endswith(f".{item}")


def _address(host: str) -> Address | None:
    import ipaddress

    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
