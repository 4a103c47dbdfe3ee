# SPDX-License-Identifier: Apache-2.0
"""The registry's small languages: challenges, Link and Range headers, proxies, platforms, error documents."""

from __future__ import annotations

import email.utils
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.rootfs import media
from pyrun.rootfs.registry import auth, blobs, errors, manifests, proxies, reply, sockets, transport
from pyrun.rootfs.registry.manifests import Platform
from pyrun.runtime.errors import NotFound, UsageError

CHALLENGES: dict[str, list[tuple[str, dict[str, str]]]] = {
    'Bearer realm="https://a/token",service="s",scope="repository:x:pull,push"': [
        ("bearer", {"realm": "https://a/token", "service": "s", "scope": "repository:x:pull,push"})
    ],
    'Basic realm="x", Bearer realm="y"': [("basic", {"realm": "x"}), ("bearer", {"realm": "y"})],
    "BASIC": [("basic", {})],
    'Basic realm="a \\"b\\" c", charset=UTF-8': [("basic", {"realm": 'a "b" c', "charset": "UTF-8"})],
    'Digest realm="x", nonce="a,b", Basic realm="z"': [
        ("digest", {"realm": "x", "nonce": "a,b"}),
        ("basic", {"realm": "z"}),
    ],
    'Bearer realm="unfinished': [("bearer", {"realm": "unfinished"})],
    "": [],
    " , ,": [],
    'realm="nobody\'s"': [],
}


@pytest.mark.parametrize(("header", "expected"), CHALLENGES.items())
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    """RFC 9110's lists of challenges, whose commas separate parameters as well as challenges."""
    assert [(one.scheme, one.parameters) for one in auth.challenges(header)] == expected


@given(st.text(alphabet='Bearsic ,="\\x\t', max_size=60))
def test_any_challenge_is_read_to_its_end(header: str) -> None:
    """No header makes the parser loop or fail."""
    for one in auth.challenges(header):
        assert one.scheme == one.scheme.lower()


def test_basic_is_utf_8() -> None:
    """RFC 7617 with charset UTF-8, as docker sends it."""
    assert auth.basic("ü", "p:w") == "Basic w7w6cDp3"


RANGES = {
    "bytes 0-9/10": (0, 10),
    "bytes 5-9/*": (5, None),
    "BYTES 5-9/10": (5, 10),
    "bytes 5-9": (-1, None),
    "bytes */10": (-1, None),
    "bytes -5-9/10": (-1, None),
    "bytes ٣-٤/١٠": (-1, None),
    "items 0-9/10": (-1, None),
    "bytes 0-9/10/11": (-1, None),
    "bytes " + "9" * 40 + "-1/2": (-1, None),
    "": (-1, None),
}


@pytest.mark.parametrize(("text", "expected"), RANGES.items())
def test_content_range(text: str, expected: tuple[int, int | None]) -> None:
    """What is not exactly a range counts as another place than the one that was asked for."""
    assert blobs.content_range(text) == expected


def test_retry_after() -> None:
    """Seconds or a date."""
    assert reply.retry_after("7") == 7
    assert reply.retry_after("") is None
    assert reply.retry_after("soon") is None
    assert reply.retry_after("-1") is None
    assert reply.retry_after("٣") is None
    assert reply.retry_after("9" * 30) is None
    later = reply.retry_after(email.utils.formatdate(time.time() + 30, usegmt=True))
    assert later is not None
    assert 25 < later < 35
    assert reply.retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0


LINKS = {
    '</v2/x/tags/list?last=b>; rel="next"': "/v2/x/tags/list?last=b",
    "<a>; rel=prev, <b>; rel=next": "b",
    "a; rel=next": "",
    "<a>": "",
    "": "",
}


@pytest.mark.parametrize(("header", "target"), LINKS.items())
def test_links(header: str, target: str) -> None:
    """The next page of a list."""
    assert transport.next_page(header) == target


ORIGINS = {
    "https://a.example/x": ("https", "a.example", 443),
    "http://A.example:80/": ("http", "a.example", 80),
    "http://[::1]:5000/x": ("http", "::1", 5000),
    "file:///etc/passwd": None,
    "ftp://a/": None,
    "//a/": None,
    "https://": None,
    "https://a:99999/": None,
    "https://a:x/": None,
    "https://[::1/": None,
}


@pytest.mark.parametrize(("url", "expected"), ORIGINS.items())
def test_origins(url: str, expected: tuple[str, str, int] | None) -> None:
    """Scheme, host and port decide who gets credentials."""
    found = sockets.origin_of(url)
    assert (None if found is None else (found.scheme, found.host, found.port)) == expected


NO_PROXY = [
    ("", "a.example", 443, True),
    ("*", "a.example", 443, False),
    ("example", "a.example", 443, False),
    ("a.example", "a.example", 443, False),
    ("a.example", "b.a.example", 443, False),
    ("a.example", "xa.example", 443, True),
    (".example", "a.example", 443, False),
    (".a.example", "a.example", 443, True),
    ("*.example", "a.example", 443, False),
    ("a.example:443", "a.example", 443, False),
    ("a.example:444", "a.example", 443, True),
    ("10.0.0.0/8", "10.1.2.3", 80, False),
    ("10.0.0.0/8", "11.1.2.3", 80, True),
    ("10.0.0.0/x", "10.1.2.3", 80, True),
    ("10.1.2.3", "10.1.2.3", 80, False),
    ("[fd00::1]:80", "fd00::1", 80, False),
    ("fd00::/8", "fd00::1", 80, False),
    ("b, A.EXAMPLE ,c", "a.example", 443, False),
    ("", "localhost", 443, False),
    ("", "127.0.0.7", 443, False),
    ("", "::1", 443, False),
]


@pytest.mark.parametrize(("text", "host", "port", "proxied"), NO_PROXY)
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, text: str, host: str, port: int, proxied: bool) -> None:
    """Names, domains, networks and ports; this machine never goes through a proxy."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", text)
    assert proxies.proxy_for("https", host, port) == ("http://proxy.example:3128" if proxied else "")


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scheme has its own; the small letters win; HTTP_PROXY is a request's header for a CGI program."""
    for name in ("no_proxy", "NO_PROXY", "https_proxy", "HTTPS_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://big:1")
    assert proxies.proxy_for("http", "a.example", 80) == "http://big:1"
    assert proxies.proxy_for("https", "a.example", 443) == ""
    monkeypatch.setenv("http_proxy", "http://small:1")
    assert proxies.proxy_for("http", "a.example", 80) == "http://small:1"
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert proxies.proxy_for("http", "a.example", 80) == ""
    monkeypatch.setenv("https_proxy", "socks5://x:1")
    with pytest.raises(UsageError, match="only http and https proxies are supported"):
        proxies.proxy_for("https", "a.example", 443)


PLATFORMS: dict[str, Platform | None] = {
    "linux/amd64": Platform("linux", "amd64"),
    "Linux/x86_64": Platform("linux", "amd64"),
    "arm64": Platform("linux", "arm64"),
    "linux/arm64/v8": Platform("linux", "arm64", "v8"),
    "linux/armhf": Platform("linux", "arm", "v7"),
    "linux/arm/v6": Platform("linux", "arm", "v6"),
    "arm/v7": Platform("linux", "arm", "v7"),
    "ARM64/v8": Platform("linux", "arm64", "v8"),
    "windows/amd64": Platform("windows", "amd64"),
    "linux/": None,
    "a/b/c/d": None,
    "linux/a b": None,
    "linux/ａ": None,
}


@pytest.mark.parametrize(("text", "expected"), PLATFORMS.items())
def test_platforms(text: str, expected: Platform | None) -> None:
    """os/arch[/variant], with the names that other tools use."""
    if expected is None:
        with pytest.raises(UsageError, match="not a platform"):
            manifests.parse_platform(text)
    else:
        assert manifests.parse_platform(text) == expected


def index(*platforms: str) -> manifests.Document:
    entries = []
    for number, text in enumerate(platforms):
        system, architecture, variant = (*text.split("/"), "")[:3]
        platform = {"os": system, "architecture": architecture, "variant": variant}
        kind = "application/vnd.oci.image.manifest.v1+json"
        entries.append({"mediaType": kind, "digest": f"sha256:{number:064x}", "size": 1, "platform": platform})
    return manifests.Document("", media.OCI_INDEX, b"", {"manifests": entries})


CHOICES: list[tuple[Platform, tuple[str, ...], int | None]] = [
    (Platform("linux", "amd64"), ("linux/arm64", "linux/amd64"), 1),
    (Platform("linux", "amd64"), ("linux/amd64/v3", "linux/amd64"), 1),
    (Platform("linux", "amd64"), ("linux/amd64/v3",), None),
    (Platform("linux", "amd64", "v3"), ("linux/amd64", "linux/amd64/v2", "linux/amd64/v4"), 1),
    (Platform("linux", "arm64"), ("linux/arm64", "linux/arm64/v8"), 1),
    (Platform("linux", "arm", "v7"), ("linux/arm/v5", "linux/arm/v6", "linux/arm/v8"), 1),
    (Platform("linux", "arm", "v6"), ("linux/arm/v7", "linux/arm/v5"), 1),
    (Platform("linux", "s390x"), ("linux/amd64", "linux/arm64"), None),
    (Platform("linux", "amd64"), ("windows/amd64", "unknown/unknown", "linux/amd64"), 2),
    (Platform("linux", "riscv64"), ("linux/riscv64/any", "linux/riscv64"), 1),
]


@pytest.mark.parametrize(("platform", "offered", "expected"), CHOICES)
def test_choosing(platform: Platform, offered: tuple[str, ...], expected: int | None) -> None:
    """The best variant that runs, never one that does not."""
    if expected is None:
        with pytest.raises(NotFound, match="there is one for"):
            manifests.choose(index(*offered), platform, "x", exact=True)
    else:
        chosen: Any = manifests.choose(index(*offered), platform, "x", exact=True)
        assert chosen["digest"] == f"sha256:{expected:064x}"


def test_errors_in_the_registry_s_words() -> None:
    """The messages of an error document; nothing of what is none."""
    body = b'{"errors":[{"code":"DENIED","message":"no\\u0007 way"},{"code":"UNKNOWN"}]}'
    assert str(errors.refusal("r.example", 403, body)) == "registry r.example: access denied (403): no way; UNKNOWN"
    for odd in (b"", b"<html>", b"[]", b'{"errors": 1}', b'{"errors": [1]}', b'{"errors":[{"message":null}]}'):
        assert str(errors.refusal("r.example", 503, odd)) == "registry r.example: it is not available (503)"
    assert isinstance(errors.refusal("r.example", 404, b"", "tags of x"), NotFound)
    assert errors.refusal("r.example", 401, b"").hint.endswith("pyrun login r.example")
    assert "418" in str(errors.refusal("r.example", 418, b""))


@given(st.text())
def test_printable_is_one_harmless_line(text: str) -> None:
    """Whatever a server says."""
    shown = errors.printable(text)
    assert shown.isprintable()
    assert len(shown) <= errors.MAX_TEXT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hostname mismatch.", "hostname mismatch"),
        ("IP address mismatch, certificate is not valid", "IP address mismatch, certificate is not valid"),
        ("A thing", "a thing"),
        ("", ""),
    ],
)
def test_a_librarys_sentence(text: str, expected: str) -> None:
    """Lower case at its beginning, but not where the first word is an abbreviation."""
    assert sockets.lowered(text) == expected
