# SPDX-License-Identifier: Apache-2.0
"""TLS and passwords at the real docker-registry: what is trusted, who is let in, and what is said when not."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import tars
from pyrun.rootfs import refs
from pyrun.rootfs.registry.config import Endpoint
from pyrun.rootfs.registry.credentials import Credentials
from pyrun.rootfs.registry.errors import AccessDenied, Unreachable
from pyrun.rootfs.registry.pull import pull
from pyrun.rootfs.registry.push import push
from pyrun.rootfs.registry.sockets import Patience
from pyrun.rootfs.registry.transport import ping
from pyrun.rootfs.store import ImageStore
from pyrun.runtime.paths import Paths
from registries import PASSWORD, TOOLS, USER, Authority, DockerRegistry, configured, make_authority
from requires import requires

pytestmark = requires(root=True, tools=TOOLS)

BASE = tars.tar(tars.member("file", data=b"content"))
QUICK = Patience(attempts=2, first_delay_s=0.05, read_s=5.0, connect_s=5.0)
ALICE = Credentials(USER, PASSWORD)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[DockerRegistry]:
    """TLS by an authority of the test's own, and a password."""
    with DockerRegistry(tmp_path_factory.mktemp("locked"), authority=authority, password=True) as running:
        yield running


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials of this machine's user."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    made = ImageStore(Paths(str(tmp_path / "data"), str(tmp_path / "run")))
    oci = tars.Oci()
    oci.name(oci.manifest([BASE], gz=True), "docker.io/library/mine:1")
    made.load(io.BytesIO(oci.archive()))
    return made


def logged_in(tmp_path: Path, host: str, user: str = USER, password: str = PASSWORD) -> None:
    """What `docker login` writes."""
    (tmp_path / "docker").mkdir()
    auth = base64.b64encode(f"{user}:{password}".encode()).decode()
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_push_and_pull_with_a_password(
    store: ImageStore, locked: DockerRegistry, authority: Authority, tmp_path: Path
) -> None:
    """The credentials of docker's own file, over TLS by an authority of one's own."""
    logged_in(tmp_path, locked.host)
    registries = configured(locked.host, ca=authority.ca)
    reference = refs.parse(f"{locked.host}/mine:1")
    pushed = push(store, "mine:1", reference, registries=registries, patience=QUICK)
    store.remove("mine:1")
    assert store.list() == []
    pulled = pull(store, reference, registries=registries, patience=QUICK)
    assert pulled.digest == pushed.digest


def test_without_or_with_wrong_credentials(
    store: ImageStore, locked: DockerRegistry, authority: Authority, tmp_path: Path
) -> None:
    """Access denied, with the command that helps; who was refused is named, the password never."""
    registries = configured(locked.host, ca=authority.ca)
    reference = refs.parse(f"{locked.host}/mine:1")
    with pytest.raises(AccessDenied, match=rf"registry {locked.host}: access denied$") as caught:
        pull(store, reference, registries=registries, patience=QUICK)
    assert f"pyrun login {locked.host}" in caught.value.hint
    logged_in(tmp_path, locked.host, password="wrong")
    for attempt in (
        lambda: pull(store, reference, registries=registries, patience=QUICK),
        lambda: push(store, "mine:1", reference, registries=registries, patience=QUICK),
    ):
        with pytest.raises(AccessDenied, match="access denied for user alice") as caught:
            attempt()
        assert "wrong" not in f"{caught.value} {caught.value.hint}"


def test_ping(locked: DockerRegistry, authority: Authority, tmp_path: Path) -> None:
    """What `login` asks: the right password passes, another one and none do not."""
    endpoint = Endpoint(locked.host, ca_files=(str(authority.ca),))
    ping(endpoint, ALICE, patience=QUICK)
    with pytest.raises(AccessDenied, match="access denied for user alice"):
        ping(endpoint, Credentials(USER, "wrong"), patience=QUICK)
    with pytest.raises(AccessDenied, match="access denied$"):
        ping(endpoint, None, patience=QUICK)
    with pytest.raises(Unreachable, match="certificate is not trusted"):
        ping(Endpoint(locked.host), ALICE, patience=QUICK)
    with DockerRegistry(tmp_path / "plain") as plain:
        ping(Endpoint(plain.host, schemes=("https", "http")), None, patience=QUICK)
        ping(Endpoint(plain.host, schemes=("http",)), None, patience=QUICK)


def test_certificates(store: ImageStore, locked: DockerRegistry, authority: Authority, tmp_path: Path) -> None:
    """An unknown authority is refused and never asked in plain text; insecure=true accepts it."""
    logged_in(tmp_path, locked.host)
    reference = refs.parse(f"{locked.host}/mine:2")
    push(store, "mine:1", reference, registries=configured(locked.host, ca=authority.ca), patience=QUICK)
    with pytest.raises(Unreachable, match="its certificate is not trusted: unable to get local issuer") as caught:
        pull(store, reference, registries=configured(locked.host, insecure=False), patience=QUICK)
    assert "certs.d" in caught.value.hint
    for registries in (configured(locked.host, insecure=True), configured(locked.host)):  # localhost is insecure
        assert pull(store, reference, registries=registries, patience=QUICK).image.names


def test_a_name_that_is_not_in_the_certificate(tmp_path: Path) -> None:
    """A trusted authority's certificate for another host is none for this one."""
    elsewhere = make_authority(tmp_path / "elsewhere", "DNS:elsewhere.example")
    with DockerRegistry(tmp_path / "registry", authority=elsewhere) as registry:
        endpoint = Endpoint(registry.host, ca_files=(str(elsewhere.ca),))
        with pytest.raises(Unreachable, match=r"not trusted: hostname mismatch.* 'localhost'") as caught:
            ping(endpoint, ALICE, patience=QUICK)
        assert caught.value.hint.startswith("use the name that stands in the certificate; or")
        assert "insecure = true" in caught.value.hint


def test_client_certificates(store: ImageStore, authority: Authority, tmp_path: Path) -> None:
    """A registry that wants one: without it a clear refusal, with it a pull."""
    with DockerRegistry(tmp_path / "strict", authority=authority, want_client=True) as strict:
        reference = refs.parse(f"{strict.host}/mine:1")
        without = configured(strict.host, ca=authority.ca)
        with pytest.raises(Unreachable, match="it wants a client certificate"):
            push(store, "mine:1", reference, registries=without, patience=QUICK)
        pair = (authority.client_cert, authority.client_key)
        registries = configured(strict.host, ca=authority.ca, client=pair)
        push(store, "mine:1", reference, registries=registries, patience=QUICK)
        store.remove("mine:1")
        assert pull(store, reference, registries=registries, patience=QUICK).image.names
