# SPDX-License-Identifier: Apache-2.0
"""registries.toml, podman's registries.conf and certs.d: what they say about where and how a registry is reached."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrun.rootfs.registry import registries_toml
from pyrun.rootfs.registry.config import DOCKER_HUB, Endpoint, Entry, Mirror, Registries, is_loopback
from pyrun.runtime.errors import PyrunError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Load = Callable[[str], Registries]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Reads a text as pyrun's file and nothing else."""

    def read(text: str) -> Registries:
        file = tmp_path / "registries.toml"
        file.write_text(textwrap.dedent(text))
        monkeypatch.setenv("PYRUN_REGISTRIES", str(file))
        monkeypatch.delenv("CONTAINERS_REGISTRIES_CONF", raising=False)
        return Registries.load()

    return read


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Reads a text as podman's file and nothing else."""

    def read(text: str) -> Registries:
        (tmp_path / "registries.conf").write_text(textwrap.dedent(text))
        (tmp_path / "empty.toml").write_text("")
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
        monkeypatch.setenv("PYRUN_REGISTRIES", str(tmp_path / "empty.toml"))
        return Registries.load()

    return read


# --- without files ---------------------------------------------------------------------------------------------


def test_docker_io_is_docker_hub() -> None:
    """The host that serves docker.io has another name, and speaks HTTPS only."""
    assert Registries(certs_dirs=()).endpoints("docker.io") == (Endpoint(DOCKER_HUB, ("https",), True),)


@pytest.mark.parametrize("host", ["localhost", "localhost:5001", "127.0.0.1:5000", "127.3.2.1", "[::1]:5000"])
def test_loopback_registry_may_be_plain(host: str) -> None:
    """As docker has it: HTTPS first, its certificate not verified, then HTTP."""
    (endpoint,) = Registries(certs_dirs=()).endpoints(host)
    assert (endpoint.schemes, endpoint.verify) == (("https", "http"), False)


@pytest.mark.parametrize("host", ["localhost.example", "128.0.0.1", "127.example.com:80", "10.127.0.1", "1270.0.0.1"])
def test_other_registry_must_not_be_plain(host: str) -> None:
    """A name that only looks like this machine's gets no plain HTTP."""
    assert not is_loopback(host)
    (endpoint,) = Registries(certs_dirs=()).endpoints(host)
    assert (endpoint.schemes, endpoint.verify) == (("https",), True)


# --- pyrun's own file ------------------------------------------------------------------------------------------


def test_mirrors_come_first(load: Load) -> None:
    """Mirrors in their order, the registry itself last; http:// is plain HTTP; pushes go to the registry only."""
    registries = load(
        """
        [registry."docker.io"]
        mirrors = ["mirror.example:5000", "http://10.0.0.5/hub"]
        """
    )
    first, second, last = registries.endpoints("docker.io")
    assert first == Endpoint("mirror.example:5000", ("https",), True, mirror=True, namespace="docker.io")
    assert (second.host, second.schemes, second.prefix) == ("10.0.0.5", ("http",), "hub")
    assert second.repository("library/busybox") == "hub/library/busybox"
    assert last.host == DOCKER_HUB
    assert not last.mirror
    assert registries.endpoints("docker.io", push=True) == (last,)
    assert registries.endpoints("quay.io") == (Endpoint("quay.io"),)


def test_mirror_follows_its_own_entry(load: Load, tmp_path: Path) -> None:
    """`insecure` and `ca` of a mirror are said once, in the mirror's entry."""
    (tmp_path / "ca.pem").write_text("")
    registries = load(
        """
        [registry."docker.io"]
        mirrors = ["a.example", "b.example"]
        [registry."a.example"]
        insecure = true
        [registry."b.example"]
        ca = ["ca.pem"]
        """
    )
    a, b, _ = registries.endpoints("docker.io")
    assert (a.schemes, a.verify) == (("https", "http"), False)
    assert (b.schemes, b.verify, b.ca_files) == (("https",), True, (str(tmp_path / "ca.pem"),))


def test_mirror_for_digests_only(load: Load) -> None:
    """What may serve old tags is asked for digests alone."""
    registries = load(
        """
        [registry."docker.io"]
        mirrors = [{ location = "m.example", only = "digest" }]
        """
    )
    assert len(registries.endpoints("docker.io")) == 1
    assert registries.endpoints("docker.io", by_digest=True)[0].host == "m.example"


def test_loopback_registry_with_a_ca_is_verified(load: Load, tmp_path: Path) -> None:
    """Whoever names a CA wants the certificate checked, on this machine too."""
    (tmp_path / "ca.pem").write_text("")
    (endpoint,) = load('[registry."localhost:5001"]\nca = ["ca.pem"]').endpoints("localhost:5001")
    assert (endpoint.schemes, endpoint.verify) == (("https",), True)
    (endpoint,) = load('[registry."localhost:5001"]\ninsecure = false').endpoints("localhost:5001")
    assert (endpoint.schemes, endpoint.verify) == (("https",), True)


def test_longest_prefix_counts(load: Load) -> None:
    """An entry of a part of a registry goes before that of the whole; *.domain is every host below it."""
    registries = load(
        """
        [registry."quay.io"]
        blocked = true
        [registry."quay.io/team"]
        location = "other.example/their"
        [registry."*.corp.example"]
        insecure = true
        """
    )
    with pytest.raises(PyrunError, match="registry quay.io: it is blocked"):
        registries.endpoints("quay.io", path="teams/app")
    (endpoint,) = registries.endpoints("quay.io", path="team/app")
    assert (endpoint.host, endpoint.repository("team/app")) == ("other.example", "their/app")
    assert not registries.endpoints("a.b.corp.example:5000")[0].verify
    assert registries.endpoints("corp.example")[0].verify


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("flask", "localhost:5001/py/flask"),
        ("flask:3", "localhost:5001/py/flask:3"),
        ("flask@sha256:" + "0" * 64, "localhost:5001/py/flask@sha256:" + "0" * 64),
        ("team/web:1", "quay.io/team/web:1"),
        ("flasks", "flasks"),
        ("docker.io/library/flask", "docker.io/library/flask"),
        ("localhost:5000/flask", "localhost:5000/flask"),
    ],
)
def test_short_names(load: Load, text: str, full: str) -> None:
    """An alias stands for the name without tag and digest, and for nothing else."""
    registries = load(
        """
        [aliases]
        flask = "localhost:5001/py/flask"
        "team/web" = "quay.io/team/web"
        """
    )
    assert registries.short_name(text) == full


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ('\n[registry."docker.io"]\nmirors = []', ":3: mirors: no such key", "did you mean 'mirrors'?"),
        ("[registri]", ":1: registri: no such key", "did you mean 'registry'?"),
        ('[registry."a.b"]\n\ninsecure = "yes"', ":3: insecure: must be true or false", ""),
        ('[registry."a.b"]\nmirrors = "x"', ":2: mirrors: must be a list", 'mirrors = ["mirror.example:5000"]'),
        ('[registry."a.b"]\nmirrors = ["ftp://x"]', ":2: mirrors: not a mirror: 'ftp://x'", "host[:port][/path]"),
        ('[registry."a.b"]\nmirrors = [{location="x", only="all"}]', ":2: only: unknown word 'all'", "digest or tag"),
        ('[registry."a.b"]\nca = ["no.pem"]', ":2: ca: no such file: ", ""),
        ('[registry."a.b"]\nclient-cert = "x"', ":2: client-cert: needs client-cert and client-key", ""),
        ("[registry]\n'a b' = {}", ":2: a b: not a registry", "quay.io/team"),
        ('[aliases]\nx = "y"', ":2: x: 'y' is not a full name", "docker.io/library/python"),
        ("certs-dirs = 1", ":1: certs-dirs: must be a list of strings", ""),
        ("aliases = 1", ":1: aliases: must be a table", "[aliases]"),
        ("a = \n", ":1:5: invalid value", ""),
        ('a = "', " at the end of the file", ""),
    ],
)
def test_mistake_in_the_file(load: Load, text: str, line: str, hint: str) -> None:
    """Every mistake is one line with file, line and key, and what was probably meant."""
    with pytest.raises(PyrunError) as caught:
        load(text)
    assert "registries.toml" in str(caught.value)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hint in caught.value.hint


def test_named_file_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the environment names is not silently left out."""
    monkeypatch.setenv("PYRUN_REGISTRIES", str(tmp_path / "none"))
    with pytest.raises(PyrunError, match=r"none: no such file"):
        Registries.load()


# --- podman's files --------------------------------------------------------------------------------------------


def test_podmans_file(podman: Load) -> None:
    """registries.conf, version 2: prefix, location, mirrors, insecure, blocked, aliases; other keys are podman's."""
    registries = podman(
        """
        unqualified-search-registries = ["example.com"]
        short-name-mode = "enforcing"
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.example:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "digests.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "example.com/foo"
        location = "internal.example/bar"
        [[registry]]
        location = "bad.example"
        blocked = true
        [aliases]
        web = "quay.io/team/web"
        """
    )
    mirror, hub = registries.endpoints("docker.io", path="library/x")
    assert (mirror.host, mirror.repository("library/x"), mirror.verify) == (
        "mirror.example:5000", "hub/library/x", False,
    )  # fmt: skip
    assert hub.host == DOCKER_HUB
    assert [e.host for e in registries.endpoints("docker.io", by_digest=True)][1:] == ["digests.example", DOCKER_HUB]
    (endpoint,) = registries.endpoints("example.com", path="foo/app")
    assert (endpoint.host, endpoint.repository("foo/app")) == ("internal.example", "bar/app")
    with pytest.raises(PyrunError, match="blocked"):
        registries.endpoints("bad.example")
    assert registries.short_name("web:2") == "quay.io/team/web:2"


def test_podmans_mistake_names_the_line(podman: Load) -> None:
    """Also in the second table of an array."""
    text = '[[registry]]\nlocation = "a.b"\n[[registry.mirror]]\nlocation = "c.d"\npull-from-mirror = "all"\n'
    with pytest.raises(PyrunError, match=r"registries.conf:10: pull-from-mirror: unknown word 'never'"):
        podman(text + text.replace("all", "never"))


def test_own_entry_replaces_podmans(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry by entry, the later file counts."""
    load('[registry."a.example"]\nmirrors = ["m.example"]\n[aliases]\nx = "b.example/x"')
    (tmp_path / "podman.conf").write_text(
        '[[registry]]\nlocation="a.example"\nblocked=true\n[[registry]]\nlocation="c.example"\nblocked=true\n'
        '[aliases]\nx="c.example/x"\ny="c.example/y"\n'
    )
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "podman.conf"))
    registries = Registries.load()
    assert [endpoint.host for endpoint in registries.endpoints("a.example")] == ["m.example", "a.example"]
    assert (registries.short_name("x"), registries.short_name("y")) == ("b.example/x", "c.example/y")
    with pytest.raises(PyrunError, match="blocked"):
        registries.endpoints("c.example")


# --- certs.d ---------------------------------------------------------------------------------------------------


def test_certs_d(load: Load, tmp_path: Path) -> None:
    """certs.d/<host:port>: every .crt is an authority, every .cert with its .key a client certificate."""
    directory = tmp_path / "certs.d" / "reg.example:5000"
    directory.mkdir(parents=True)
    for name in ("ca.crt", "b.crt", "me.cert", "me.key", "README"):
        (directory / name).write_text("")
    registries = load('certs-dirs = ["certs.d"]')
    (endpoint,) = registries.endpoints("reg.example:5000")
    assert endpoint.ca_files == (f"{directory}/b.crt", f"{directory}/ca.crt")
    assert endpoint.client_certs == ((f"{directory}/me.cert", f"{directory}/me.key"),)
    assert endpoint.verify
    assert registries.endpoints("reg.example") == (Endpoint("reg.example"),)


@pytest.mark.parametrize(("there", "missing"), [("me.cert", "me.key"), ("me.key", "me.cert")])
def test_certs_d_with_half_a_pair(load: Load, tmp_path: Path, there: str, missing: str) -> None:
    """A client certificate without its key, or the other way round, is an error that says which file is missing."""
    directory = tmp_path / "certs.d" / "a.example"
    directory.mkdir(parents=True)
    (directory / there).write_text("")
    with pytest.raises(PyrunError, match=f"{missing} is missing"):
        load('certs-dirs = ["certs.d"]').endpoints("a.example")


# --- any text --------------------------------------------------------------------------------------------------

HOSTS = st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){1,2}(:[0-9]{1,5})?", fullmatch=True)
PATHS = st.from_regex(r"[a-z0-9]{1,6}(/[a-z0-9]{1,6}){0,2}", fullmatch=True)


@given(host=HOSTS, path=PATHS, mirror=HOSTS, prefix=st.one_of(st.just(""), PATHS))
def test_path_at_a_mirror(host: str, path: str, mirror: str, prefix: str) -> None:
    """A mirror of a whole registry has the path as it is, below its own prefix; the registry comes last."""
    place = f"{mirror}/{prefix}" if prefix else mirror
    registries = Registries([Entry(host, mirrors=(Mirror(place),))], certs_dirs=())
    first, last = registries.endpoints(host, path=path)
    assert (first.host, first.repository(path)) == (mirror, f"{prefix}/{path}" if prefix else path)
    assert (last.host, last.repository(path)) == (host, path)


@given(keys=st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=3), above=st.integers(0, 5))
def test_line_of_any_key(keys: list[str], above: int) -> None:
    """The line of a key is found however it is quoted."""
    import json

    quoted = [json.dumps(key, ensure_ascii=False) for key in keys]
    if any(char in key for key in keys for char in "\x7f\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029="):
        return
    header = f"[{'.'.join(quoted[:-1])}]" if len(keys) > 1 else "# none"
    text = "\n" * above + f"{header}\n{quoted[-1]} = 1\n"
    assert registries_toml.line_of(text, tuple(keys)) == above + 2


VALUES = st.recursive(
    st.booleans() | st.integers(0, 2) | st.sampled_from(["", "a.example", "http://b.example/x", "ftp://c", "x y"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from([*registries_toml.REGISTRY_KEYS, "only", "a.example", "x"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


def toml(value: object) -> str:
    """A value as inline TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {toml(item)}' for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else f'"{value}"'


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    top=st.dictionaries(st.sampled_from(registries_toml.TOP_KEYS), VALUES),
    registry=st.dictionaries(st.sampled_from([*registries_toml.REGISTRY_KEYS, "x"]), VALUES, max_size=3),
)
def test_any_values_in_the_file(load: Load, top: dict[str, object], registry: dict[str, object]) -> None:
    """It is understood, or refused in one line that names the file: nothing else comes of it."""
    if registry:
        top = {**top, "registry": {"a.example": registry}}
    said = ""
    try:
        found = load("\n".join(f"{key} = {toml(value)}" for key, value in top.items()))
        endpoints = found.endpoints("a.example", path="x")
    except PyrunError as error:
        said = f"{error} {error.hint}"
        endpoints = ()
    assert bool(said) != bool(endpoints)
    assert "\n" not in said
    assert not said or "registries.toml" in said
    assert all(endpoint.host and endpoint.schemes for endpoint in endpoints)
