# SPDX-License-Identifier: Apache-2.0
"""docker's config.json, its credential helpers, and podman's auth.json."""

from __future__ import annotations

import base64
import json
import os
import stat
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrun.rootfs.registry import credentials
from pyrun.rootfs.registry.credentials import Credentials, erase, lookup, store
from pyrun.runtime.errors import PyrunError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HUB = "https://index.docker.io/v1/"
ME = Credentials("me", "se:cr€t")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any credentials; gives the directory of config.json, which is not there yet."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr(credentials, "podman_files", lambda: [os.environ.get("REGISTRY_AUTH_FILE", "/nonexistent")])
    return tmp_path / "docker"


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


def write(home: Path, value: Any) -> None:
    home.mkdir(exist_ok=True)
    (home / "config.json").write_text(value if isinstance(value, str) else json.dumps(value))


def read(home: Path) -> Any:
    return json.loads((home / "config.json").read_text())


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Makes docker-credential-<name> of a shell script, first in PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    def make(name: str, script: str) -> Path:
        path = tmp_path / "bin" / f"docker-credential-{name}"
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + textwrap.dedent(script))
        path.chmod(0o755)
        return path

    return make


# one file for each registry, as a keychain would have it; what it is called with is in calls
KEYCHAIN = """
    dir=$HOME/keychain; mkdir -p $dir; echo "$1" >> $dir/calls; env > $dir/env
    input=$(cat); name=$(echo "$input" | sed -n 's/.*"ServerURL": *"\\([^"]*\\)".*/\\1/p'); name=${name:-$input}
    file=$dir/$(echo "$name" | tr / _)
    case $1 in
    store) echo "$input" > "$file" ;;
    get) cat "$file" 2>/dev/null || { echo credentials not found in native keychain; exit 1; } ;;
    erase) rm "$file" ;;
    esac
"""


# --- the file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["docker.io", "localhost:5000", "quay.io", "[::1]:5000"])
def test_stored_found_and_erased(domain: str, home: Path) -> None:
    """What login stores, pull finds, and logout takes away; the second logout knows of nothing."""
    assert lookup(domain) is None
    assert store(domain, ME) == str(home / "config.json")
    assert lookup(domain) == ME
    assert erase(domain)
    assert lookup(domain) is None
    assert not erase(domain)


def test_file_is_private(home: Path) -> None:
    """Mode 0600 in a directory of mode 0700, whatever the umask and the file were; no temporary file is left."""
    old = os.umask(0)
    try:
        store("a.example", ME)
        (home / "config.json").chmod(0o644)
        store("b.example", ME)
    finally:
        os.umask(old)
    assert stat.S_IMODE((home / "config.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert os.listdir(home) == ["config.json"]


def test_link_to_the_file_stays(home: Path, tmp_path: Path) -> None:
    """Whoever keeps config.json elsewhere and links to it keeps the link."""
    home.mkdir()
    (tmp_path / "real.json").write_text('{"psFormat": "x"}')
    (home / "config.json").symlink_to(tmp_path / "real.json")
    store("a.example", ME)
    assert (home / "config.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["psFormat"] == "x"


def test_everything_else_in_the_file_stays(home: Path) -> None:
    """docker's other settings and other registries' entries are kept, in their order."""
    before = {"psFormat": "{{.ID}}", "auths": {"a.example": auth("x:y")}, "proxies": {"default": {"httpProxy": "ü"}}}
    write(home, before)
    store("b.example", ME)
    after = read(home)
    assert list(after) == list(before)
    assert after["auths"]["a.example"] == auth("x:y")
    erase("b.example")
    assert read(home) == before


@pytest.mark.parametrize(
    ("key", "domain"),
    [
        (HUB, "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        (HUB, "registry-1.docker.io"),
        ("https://reg.example:5000/v1/", "reg.example:5000"),
        ("https://reg.example:5000/v2/", "reg.example:5000"),
        ("http://reg.example:5000", "reg.example:5000"),
        ("reg.example:5000/", "reg.example:5000"),
    ],
)
def test_older_forms_of_the_key(key: str, domain: str, home: Path) -> None:
    """docker has written registries' names in several ways; login leaves one entry, in today's form."""
    write(home, {"auths": {key: auth("me:se:cr€t")}})
    assert lookup(domain) == ME
    store(domain, Credentials("you", "x"))
    assert len(read(home)["auths"]) == 1
    assert lookup(domain) == Credentials("you", "x")
    assert erase(domain)
    assert read(home)["auths"] == {}


@pytest.mark.parametrize(
    "key", ["reg.example", "https://reg.example:5001/v1/", "other/reg.example:5000", "xreg.example:5000"]
)
def test_another_registry_gets_nothing(key: str, home: Path) -> None:
    """Credentials go to the very host and port they were stored for."""
    write(home, {"auths": {key: auth("me:secret")}})
    assert lookup("reg.example:5000") is None


def test_identity_token(home: Path) -> None:
    """A token server's refresh token in place of the password."""
    write(home, {"auths": {"a.example": {**auth("me:"), "identitytoken": "tok"}}})
    assert lookup("a.example") == Credentials("me", "", "tok")
    store("b.example", Credentials("me", "", "tok"))
    assert read(home)["auths"]["b.example"] == {**auth("me:"), "identitytoken": "tok"}


def test_plain_username_and_password(home: Path) -> None:
    """Some tools write the two by themselves; docker reads them."""
    write(home, {"auths": {"a.example": {"username": "me", "password": "x"}}})
    assert lookup("a.example") == Credentials("me", "x")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{\n  x", "config.json:2:3: not JSON: expecting property name"),
        ("[]", "config.json: must be a JSON object"),
        ('{"auths": []}', "config.json: auths: must be an object"),
        ('{"auths": {"a.example": 1}}', "auths['a.example']: must be an object of strings"),
        ('{"auths": {"a.example": {"auth": "§"}}}', "auths['a.example']: auth is not base64"),
        ('{"auths": {"a.example": {"auth": "bWU="}}}', "auths['a.example']: auth is not USER:PASSWORD"),
        ('{"credsStore": "../x"}', "credential helper '../x': not a name"),
        ('{"credHelpers": {"a.example": 1}}', "credential helper 1: not a name"),
        ('{"credsStore": "none-such"}', "docker-credential-none-such get: there is no such program in PATH"),
    ],
)
def test_file_that_cannot_be_understood(content: str, words: str, home: Path) -> None:
    """One line with the file and the key, and the file stays as it is."""
    write(home, content)
    with pytest.raises(PyrunError) as caught:
        lookup("a.example")
    assert words in str(caught.value)
    assert (home / "config.json").read_text() == content


def test_broken_file_is_not_overwritten(home: Path) -> None:
    """login says what is wrong with it instead."""
    write(home, "{")
    with pytest.raises(PyrunError, match="not JSON"):
        store("a.example", ME)
    assert (home / "config.json").read_text() == "{"


def test_logins_at_the_same_time(home: Path) -> None:
    """None is lost."""
    names = [f"r{number}.example" for number in range(12)]
    threads = [threading.Thread(target=store, args=(name, ME)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(read(home)["auths"]) == sorted(names)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    username=st.text(st.characters(exclude_categories=["C"], exclude_characters=":"), min_size=1), password=st.text()
)
def test_any_name_and_password(username: str, password: str) -> None:
    """Every password comes back as it was, but for docker's NUL at its ends; a name has no colon."""
    password = password.encode("utf-8", "ignore").decode().strip("\0")
    store("a.example", Credentials(username, password))
    assert lookup("a.example") == Credentials(username, password)


def test_secrets_are_not_shown() -> None:
    """A traceback or a debug line shows the user and no secret."""
    assert repr(Credentials("me", "secret", "token")) == "Credentials(username='me', …)"


# --- podman ----------------------------------------------------------------------------------------------------


def test_podmans_file_is_read(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After docker's; its keys may name a part of a registry, and the longest one counts. It is never written."""
    file = tmp_path / "auth.json"
    auths = {"quay.io/team": auth("team:t"), "quay.io": auth("all:a"), "b.example": auth("podman:p")}
    file.write_text(json.dumps({"auths": auths}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
    assert lookup("quay.io", path="team/app") == Credentials("team", "t")
    assert lookup("quay.io", path="teams/app") == Credentials("all", "a")
    assert lookup("quay.io") == Credentials("all", "a")
    store("b.example", ME)
    assert lookup("b.example") == ME
    assert json.loads(file.read_text())["auths"] == auths


def test_podmans_usual_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """$REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers, /run/containers/<uid>, ~/.config/containers."""
    monkeypatch.undo()
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/a")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/r")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    uid = os.geteuid()
    expected = ["/a", "/r/containers/auth.json", f"/run/containers/{uid}/auth.json", "/c/containers/auth.json"]
    assert credentials.podman_files() == expected


# --- helpers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"credsStore": "keychain"}, {"credHelpers": {"reg.example": "keychain"}}])
def test_helper_keeps_the_secret(config: dict[str, Any], home: Path, helper: Callable[[str, str], Path]) -> None:
    """The file then has the registry's name and no secret; logout takes both away."""
    helper("keychain", KEYCHAIN)
    write(home, config)
    assert store("reg.example", ME) == "docker-credential-keychain"
    assert read(home) == {**config, "auths": {"reg.example": {}}}
    assert lookup("reg.example") == ME
    assert lookup("other.example") is None
    assert erase("reg.example")
    assert lookup("reg.example") is None
    assert read(home) == {**config, "auths": {}}


def test_helper_of_docker_hub(home: Path, helper: Callable[[str, str], Path]) -> None:
    """Helpers know docker.io by docker's old address."""
    helper("keychain", KEYCHAIN)
    write(home, {"credHelpers": {HUB: "keychain"}})
    store("docker.io", ME)
    assert (home.parent / "keychain" / HUB.replace("/", "_")).exists()
    assert lookup("docker.io") == ME


def test_helper_with_an_identity_token(home: Path, helper: Callable[[str, str], Path]) -> None:
    """By the user name <token> a helper says that the secret is one."""
    helper("keychain", KEYCHAIN)
    write(home, {"credsStore": "keychain"})
    store("reg.example", Credentials("me", "", "tok"))
    assert lookup("reg.example") == Credentials("", "", "tok")


def test_helper_sees_little_of_the_environment(
    home: Path, helper: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other programs' secrets are in the environment is none of its business; cloud accounts are."""
    helper("keychain", KEYCHAIN)
    write(home, {"credsStore": "keychain"})
    monkeypatch.setenv("DATABASE_PASSWORD", "x")
    monkeypatch.setenv("AWS_PROFILE", "work")
    lookup("reg.example")
    names = {line.partition("=")[0] for line in (home.parent / "keychain/env").read_text().splitlines()}
    assert "DATABASE_PASSWORD" not in names
    assert {"PATH", "HOME", "AWS_PROFILE"} <= names


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo the keyring is locked; exit 1", "docker-credential-bad get: the keyring is locked"),
        ("echo oops >&2; exit 3", "docker-credential-bad get: oops"),
        ("exit 3", "docker-credential-bad get: it ended with 3"),
        ("echo '{\"Username\": 1}'", "docker-credential-bad get: its answer is not JSON with Username and Secret"),
        ("head -c 2000000 /dev/zero", "docker-credential-bad get: "),
        ("sleep 60", "docker-credential-bad get: no answer in 1 s"),
    ],
)
def test_helper_that_fails(
    script: str, words: str, home: Path, helper: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own words, or what was wrong with its answer; one that hangs is ended."""
    if "sleep" in script:
        monkeypatch.setattr(credentials, "HELPER_TIMEOUT_S", 1.0)
    helper("bad", f"exec 3<&0; {script}")
    write(home, {"credsStore": "bad"})
    with pytest.raises(PyrunError) as caught:
        lookup("reg.example")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_failed_store_changes_nothing(home: Path, helper: Callable[[str, str], Path]) -> None:
    """What the helper did not take is not in the file either."""
    helper("bad", "cat >/dev/null; echo no room; exit 1")
    write(home, {"credsStore": "bad"})
    with pytest.raises(PyrunError, match="docker-credential-bad store: no room"):
        store("reg.example", ME)
    assert read(home) == {"credsStore": "bad"}


# --- any file --------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x", "bWU6cGFzcw==", "bWU="]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a.example", "auth", "identitytoken", "username", "password", "x"]), inner)
    ),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(value=st.dictionaries(st.sampled_from(["auths", "credHelpers", "x"]), JSON) | JSON)
def test_any_json_in_the_file(value: Any, home: Path) -> None:
    """It has credentials, or none, or is refused in one line: nothing else comes of it."""
    write(home, json.dumps(value))
    found, said = None, ""
    try:
        found = lookup("a.example")
    except PyrunError as error:
        said = str(error)
    assert "\n" not in said
    assert found is None or all(isinstance(field, str) for field in found.asdict().values())
