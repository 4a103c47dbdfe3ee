# SPDX-License-Identifier: Apache-2.0
"""pull, push, login, logout, search, and `run` that pulls: the command line against Debian's docker-registry."""

from __future__ import annotations

import http.server
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

import machine
from registries import PASSWORD, TOOLS, USER, Authority, DockerRegistry, make_authority
from requires import requires

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cli import Pyrun, Result

pytestmark = requires(root=True, tools=TOOLS)

Start = Callable[..., DockerRegistry]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts registries that end with the module."""
    with ExitStack() as stack:

        def start(**options: Any) -> DockerRegistry:
            return stack.enter_context(DockerRegistry(tmp_path_factory.mktemp("registry"), **options))

        yield start


@pytest.fixture(scope="module")
def plain(serve: Start) -> DockerRegistry:
    """A registry that speaks HTTP and asks nobody who he is."""
    return serve()


@pytest.fixture(scope="module")
def private(serve: Start) -> DockerRegistry:
    """A registry that wants USER and PASSWORD."""
    return serve(password=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate for localhost by an authority that nobody knows."""
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def encrypted(serve: Start, authority: Authority) -> DockerRegistry:
    """A registry that speaks HTTPS only."""
    return serve(authority=authority)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where config.json of the test is; the developer's own plays no part."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    return tmp_path / "docker"


@pytest.fixture
def registries(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Writes registries.toml; gives the environment that makes it count."""

    def write(text: str) -> dict[str, str]:
        (tmp_path / "registries.toml").write_text(text)
        return {"PYRUN_REGISTRIES": str(tmp_path / "registries.toml")}

    return write


@pytest.fixture(scope="module")
def own_tar(busybox_tar: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A root file system that no other image has: what is pulled of it is really pulled."""
    path = tmp_path_factory.mktemp("own") / "rootfs.tar"
    shutil.copy(busybox_tar, path)
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("own"))
    return str(path)


@pytest.fixture
def pushed(pyrun: Pyrun, own_tar: str, plain: DockerRegistry) -> Iterator[str]:
    """The name of an image that is in the plain registry, and not here."""
    name = f"{plain.host}/team/app:1"
    pyrun.ok("import", "--change", 'CMD ["sh"]', own_tar, name)
    pyrun.ok("push", "-q", name)
    pyrun.ok("rmi", name)
    yield name
    pyrun("rmi", "-f", name)


def login(pyrun: Pyrun, *args: str, password: str = PASSWORD) -> Result:
    return pyrun("login", "-u", USER, "--password-stdin", *args, stdin=f"{password}\n")


# --- push and pull ---------------------------------------------------------------------------------------------


def test_push_and_pull_in_dockers_words(pyrun: Pyrun, base_image: str, plain: DockerRegistry) -> None:
    """All of it on standard output; the image that comes back is the one that went."""
    name = f"{plain.host}/words"
    before = pyrun.ok("image", "inspect", "-f", "{{.Id}}", base_image)
    pyrun.ok("tag", base_image, name)
    done = pyrun("push", name)
    assert (done.rc, done.err) == (0, ""), str(done)
    lines = done.out.splitlines()
    assert lines[:2] == ["Using default tag: latest", f"The push refers to repository [{name}]"]
    assert any(line.endswith(": Pushed") for line in lines), str(done)
    assert lines[-1].startswith("latest: digest: sha256:")
    digest = lines[-1].split()[2]
    pyrun.ok("rmi", name)

    done = pyrun("pull", name)
    assert (done.rc, done.err) == (0, ""), str(done)
    lines = done.out.splitlines()
    assert lines[:2] == ["Using default tag: latest", "latest: Pulling from words"]
    assert lines[-3:] == [
        f"Digest: {digest}", f"Status: Downloaded newer image for {name}:latest", f"{name}:latest"
    ]  # fmt: skip
    assert pyrun.ok("image", "inspect", "-f", "{{.Id}}", name) == before
    again = pyrun.ok("pull", name).splitlines()
    assert again[-2] == f"Status: Image is up to date for {name}:latest"
    assert pyrun.ok("pull", "-q", name) == f"{name}:latest"
    assert pyrun.ok("push", "--quiet", name) == f"{name}:latest"
    pyrun.ok("rmi", name)


def test_pull_by_digest(pyrun: Pyrun, pushed: str) -> None:
    """name@digest brings that very manifest, whatever the tag says meanwhile."""
    digest = next(line.split()[1] for line in pyrun.ok("pull", pushed).splitlines() if line.startswith("Digest: "))
    pyrun.ok("rmi", pushed)
    name = f"{pushed.rpartition(':')[0]}@{digest}"
    done = pyrun.ok("pull", name).splitlines()
    assert done[-3:] == [f"Digest: {digest}", f"Status: Downloaded newer image for {name}", name]
    assert pyrun.ok("run", "--rm", "--network", "none", name, "echo", "hi") == "hi"
    repository = name.partition("@")[0]
    shown = pyrun.ok("images", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}", repository)
    assert shown == f"{repository} <none> {digest}"
    pyrun.ok("rmi", name)


def test_all_tags(pyrun: Pyrun, base_image: str, plain: DockerRegistry) -> None:
    """push -a and pull -a move every tag of a repository; a tag beside -a is a contradiction."""
    name = f"{plain.host}/many"
    for tag in ("1", "2", "old"):
        pyrun.ok("tag", base_image, f"{name}:{tag}")
    assert pyrun.ok("push", "-a", name).count(": digest: sha256:") == 3
    for tag in ("1", "2", "old"):
        pyrun.ok("rmi", f"{name}:{tag}")
    out = pyrun.ok("pull", "--all-tags", name)
    assert out.count("Status: Downloaded newer image") == 3
    assert out.splitlines()[-1] == name
    assert sorted(pyrun.ok("images", "--format", "{{.Tag}}", name).split()) == ["1", "2", "old"]
    for verb in ("pull", "push"):
        done = pyrun(verb, "-a", f"{name}:1")
        assert (done.rc, done.err.splitlines()[0]) == (
            125, f"pyrun: {verb}: a tag cannot be used with --all-tags/-a",
        )  # fmt: skip
    for tag in ("1", "2", "old"):
        pyrun.ok("rmi", f"{name}:{tag}")


def test_aliases_of_the_commands(pyrun: Pyrun, pushed: str) -> None:
    """docker's `image pull` and `image push`, and a flag of docker's that means nothing any more."""
    assert pyrun.ok("image", "pull", "-q", "--disable-content-trust", pushed) == pushed
    assert pyrun.ok("image", "push", "-q", pushed) == pushed


def test_content_trust(pyrun: Pyrun, pushed: str) -> None:
    """Whoever asks for docker's signatures gets an error and no unverified image; a digest needs none."""
    env = {"DOCKER_CONTENT_TRUST": "1"}
    for args in (("pull", pushed), ("push", pushed), ("run", "-q", pushed, "true")):
        done = pyrun(*args, env=env)
        assert done.rc == (125 if args[0] == "run" else 1)
        assert "signatures cannot be verified here" in done.err
    assert pyrun("pull", "--disable-content-trust=false", pushed).rc == 1
    assert pyrun.ok("pull", "-q", "--disable-content-trust", pushed, env=env) == pushed
    digest = pyrun.ok("image", "inspect", "-f", "{{index .RepoDigests 0}}", pushed)
    assert pyrun.ok("pull", "-q", digest, env=env) == digest


def test_push_of_what_is_not_here(pyrun: Pyrun, plain: DockerRegistry) -> None:
    """The store says so, before the registry is asked."""
    done = pyrun("push", f"{plain.host}/nothing-here")
    assert done.rc == 1
    assert f"pyrun: no such image '{plain.host}/nothing-here:latest'" in done.err
    assert "did you mean" not in done.err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("{host}/none", "no such image '{host}/none:latest'"),
        ("{host}/team/app:none", "no such image '{host}/team/app:none'"),
        ("localhost:9/x", "registry localhost:9: connection refused"),
        ("nosuch.invalid/x", "registry nosuch.invalid: cannot resolve 'nosuch.invalid'"),
        ("Upper", "invalid reference 'Upper': the repository name must be lower case"),
    ],
)
def test_what_cannot_be_pulled(pyrun: Pyrun, pushed: str, plain: DockerRegistry, name: str, words: str) -> None:
    """One line with the reason, exit code 1, and nothing in the store."""
    before = pyrun.ok("images", "-q", "--no-trunc")
    done = pyrun("pull", "-q", name.format(host=plain.host))
    assert done.rc in (1, 125)
    assert done.out == ""
    assert done.err.startswith(f"pyrun: {words.format(host=plain.host)}"), str(done)
    assert pyrun.ok("images", "-q", "--no-trunc") == before


# --- run -------------------------------------------------------------------------------------------------------


def test_run_pulls_what_is_missing(pyrun: Pyrun, pushed: str) -> None:
    """docker's lines on standard error, so that standard output is the container's alone."""
    done = pyrun("run", "--rm", "--network", "none", pushed, "echo", "hi")
    assert (done.rc, done.out) == (0, "hi\n"), str(done)
    lines = done.err.splitlines()
    assert lines[:2] == [f"Unable to find image '{pushed}' locally", "1: Pulling from team/app"]
    assert lines[-1] == f"Status: Downloaded newer image for {pushed}"
    done = pyrun("run", "--rm", "--network", "none", pushed, "echo", "again")
    assert (done.out, done.err) == ("again\n", "")


def test_create_pulls_quietly(pyrun: Pyrun, pushed: str) -> None:
    """With --quiet the id is all there is."""
    done = pyrun("create", "--quiet", pushed, "true")
    assert (done.rc, done.err) == (0, ""), str(done)
    assert len(done.out.strip()) == 64
    pyrun.ok("rm", done.out.strip())


def test_pull_never(pyrun: Pyrun, pushed: str) -> None:
    """The registry is not asked: 125, and a hint how to get the image."""
    done = pyrun("run", "--pull", "never", pushed, "true")
    assert done.rc == 125
    assert done.err.splitlines() == [
        f"pyrun: no such image '{pushed}': it is not here, and --pull never was said",
        f"hint: pyrun pull {pushed}",
    ]


def test_pull_always(pyrun: Pyrun, base_image: str, pushed: str, busybox_tar: str) -> None:
    """A tag that has moved in the registry is followed; when the registry is gone, that is an error."""
    pyrun.ok("import", "--change", "LABEL new=yes", busybox_tar, pushed)
    pyrun.ok("push", "-q", pushed)
    pyrun.ok("rmi", pushed)
    pyrun.ok("tag", base_image, pushed)
    done = pyrun("run", "--rm", "--network", "none", "--pull", "always", pushed, "echo", "hi")
    assert (done.rc, done.out) == (0, "hi\n"), str(done)
    assert "Unable to find" not in done.err
    assert f"Status: Downloaded newer image for {pushed}" in done.err
    assert pyrun.ok("image", "inspect", "-f", "{{.Config.Labels.new}}", pushed) == "yes"
    pyrun.ok("tag", pushed, "localhost:9/gone")
    done = pyrun("run", "--rm", "--pull", "always", "localhost:9/gone", "true")
    assert done.rc == 125
    assert "pyrun: registry localhost:9: connection refused" in done.err
    pyrun.ok("rmi", "localhost:9/gone")


def test_run_of_what_is_nowhere(pyrun: Pyrun, base_image: str) -> None:
    """One line with the registry's reason and what can be done; a mistyped name that is here gets that as the hint."""
    done = pyrun("run", "-q", "--name", "x", "nowhere/at-all", "true")
    assert done.rc == 125
    first, second = done.err.splitlines()
    reason = "it is not here, and pulling it failed: registry localhost:9: connection refused"
    assert first == f"pyrun: no such image 'nowhere/at-all': {reason}"
    for word in ("pyrun load", "scripts/base-image", "registries.toml"):
        assert word in second
    assert pyrun.ok("ps", "-aq") == ""
    done = pyrun("run", "-q", "busybx", "true")
    assert (done.rc, done.err.splitlines()[1]) == (125, "hint: did you mean busybox:latest?")


def test_id_is_not_pulled(pyrun: Pyrun, base_image: str) -> None:
    """64 hex digits name an image of the store or nothing."""
    done = pyrun("run", "-q", "0" * 64, "true")
    assert (done.rc, done.err.splitlines()[0]) == (125, f"pyrun: no such image '{'0' * 64}'")


def test_platform_of_another_machine(pyrun: Pyrun, pushed: str) -> None:
    """What is here for this machine does not serve --platform, and the registry has no other."""
    other = "linux/s390x" if os.uname().machine != "s390x" else "linux/amd64"
    pyrun.ok("pull", "-q", pushed)
    done = pyrun("run", "-q", "--platform", other, pushed, "true")
    assert done.rc == 125
    assert f"for {other}" in done.err
    own = pyrun.ok("image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", pushed)
    assert pyrun("run", "--rm", "--network", "none", "--platform", own, pushed, "true").rc == 0


def test_pulls_at_the_same_time(pyrun: Pyrun, pushed: str) -> None:
    """Several `run` of one missing image: each starts, the image is there once."""
    running = [pyrun.popen("run", "--rm", "--network", "none", pushed, "echo", str(n)) for n in range(4)]
    for number, process in enumerate(running):
        out, err = process.communicate(timeout=60 * machine.slowness())
        assert (process.returncode, out) == (0, b"%d\n" % number), err.decode()
    assert pyrun.ok("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines().count(pushed) == 1


# --- configuration ---------------------------------------------------------------------------------------------


def test_mirror(
    pyrun: Pyrun, base_image: str, plain: DockerRegistry, registries: Callable[[str], dict[str, str]]
) -> None:
    """docker.io from a mirror: the image is called as if it came from Docker Hub."""
    pyrun.ok("tag", base_image, f"{plain.host}/library/mirrored")
    pyrun.ok("push", "-q", f"{plain.host}/library/mirrored")
    pyrun.ok("rmi", f"{plain.host}/library/mirrored")
    env = registries(f'[registry."docker.io"]\nmirrors = ["http://{plain.host}"]')
    done = pyrun("run", "--rm", "--network", "none", "mirrored", "echo", "hi", env=env)
    assert (done.rc, done.out) == (0, "hi\n"), str(done)
    assert "latest: Pulling from library/mirrored" in done.err
    assert pyrun.ok("images", "--format", "{{.Repository}}", "mirrored") == "mirrored"
    pyrun.ok("rmi", "mirrored")


def test_pull_through_cache(
    pyrun: Pyrun, pushed: str, plain: DockerRegistry, serve: Start, registries: Callable[[str], dict[str, str]]
) -> None:
    """A mirror that gets what it does not have from the registry itself is asked for all of it."""
    cache = serve(mirror_of=f"http://{plain.host}")
    env = registries(f'[registry."{plain.host}"]\nmirrors = ["http://{cache.host}"]')
    assert pyrun.ok("pull", "-q", pushed, env=env) == pushed
    assert len(cache.requests("GET", "/v2/team/app/")) >= 3  # manifest, config, layer


def test_mirror_that_fails_is_passed_over(
    pyrun: Pyrun, pushed: str, plain: DockerRegistry, registries: Callable[[str], dict[str, str]]
) -> None:
    """What a mirror does not have comes from the registry itself."""
    env = registries(f'[registry."{plain.host}"]\nmirrors = ["localhost:9"]')
    assert pyrun.ok("pull", "-q", pushed, env=env) == pushed


def test_podmans_configuration(pyrun: Pyrun, pushed: str, plain: DockerRegistry, tmp_path: Path) -> None:
    """A prefix in registries.conf leads elsewhere."""
    file = tmp_path / "registries.conf"
    file.write_text(f'[[registry]]\nprefix = "registry.invalid/our"\nlocation = "{plain.host}/team"\n')
    env = {"CONTAINERS_REGISTRIES_CONF": str(file)}
    assert pyrun.ok("pull", "-q", "registry.invalid/our/app:1", env=env) == "registry.invalid/our/app:1"
    pyrun.ok("rmi", "registry.invalid/our/app:1")


def test_short_name(pyrun: Pyrun, pushed: str, registries: Callable[[str], dict[str, str]]) -> None:
    """An alias is pulled, and found again, under the name that it stands for."""
    env = registries(f'[aliases]\nour-app = "{pushed.rpartition(":")[0]}"')
    for expected in (f"Unable to find image '{pushed}' locally", ""):
        done = pyrun("run", "--rm", "--network", "none", "our-app:1", "echo", "hi", env=env)
        assert (done.rc, done.out) == (0, "hi\n"), str(done)
        assert done.err.partition("\n")[0] == expected
    assert pyrun.ok("pull", "-q", "our-app:1", env=env) == pushed


def test_ordinary_user_has_files_of_his_own() -> None:
    """$XDG_CONFIG_HOME/pyrun counts for him, and only for him; his credentials are in his home."""
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o755)
        for name in ("pyrun/certs.d/a.example", "docker"):
            os.makedirs(f"{home}/{name}")
        os.chown(f"{home}/docker", 65534, 65534)
        with open(f"{home}/pyrun/registries.toml", "w") as file:
            file.write('[registry."a.example"]\nmirrors = ["m.example"]\n')
        with open(f"{home}/pyrun/certs.d/a.example/ca.crt", "w") as file:
            file.write("")
        code = (
            "from pyrun.rootfs.registry.config import Registries\n"
            "from pyrun.rootfs.registry.credentials import Credentials, lookup, store\n"
            "print(*((one.host, len(one.ca_files)) for one in Registries.load().endpoints('a.example')))\n"
            "store('a.example', Credentials('me', 'x'))\n"
            "print(lookup('a.example'))\n"
        )
        env = {"HOME": home, "XDG_CONFIG_HOME": home, "DOCKER_CONFIG": f"{home}/docker", "PATH": os.environ["PATH"]}
        shown = [
            subprocess.run(
                [sys.executable, "-c", code], user=user, group=user, extra_groups=[], env=env, cwd="/",
                capture_output=True, text=True, check=True,
            ).stdout.splitlines()
            for user in (65534, 0)
        ]  # fmt: skip
        assert os.stat(f"{home}/docker/config.json").st_uid == 65534  # root has changed it, and it is still his
    assert shown == [
        ["('m.example', 0) ('a.example', 1)", "Credentials(username='me', …)"],
        ["('a.example', 0)", "Credentials(username='me', …)"],
    ]


def test_blocked(pyrun: Pyrun, pushed: str, plain: DockerRegistry, registries: Callable[[str], dict[str, str]]) -> None:
    """Nothing is asked of a blocked registry, and the file that blocks it is named."""
    env = registries(f'[registry."{plain.host}"]\nblocked = true')
    done = pyrun("pull", "-q", pushed, env=env)
    assert (done.rc, done.err.splitlines()[0]) == (1, f"pyrun: registry {plain.host}: it is blocked")
    assert env["PYRUN_REGISTRIES"] in done.err


def test_mistake_in_the_configuration(pyrun: Pyrun, registries: Callable[[str], dict[str, str]]) -> None:
    """File, line and key; commands that need no registry do not care."""
    env = registries('[registry."docker.io"]\nmirors = []')
    done = pyrun("pull", "x", env=env)
    assert (done.rc, done.err.splitlines()) == (
        1, [f"pyrun: {env['PYRUN_REGISTRIES']}:2: mirors: no such key", "hint: did you mean 'mirrors'?"],
    )  # fmt: skip
    assert pyrun("images", env=env).rc == 0


def test_tls(
    pyrun: Pyrun,
    base_image: str,
    encrypted: DockerRegistry,
    authority: Authority,
    tmp_path: Path,
    registries: Callable[[str], dict[str, str]],
) -> None:
    """A certificate that nobody knows is refused; one in certs.d, or named by `ca`, is trusted; insecure takes any."""
    host, name = encrypted.host, f"{encrypted.host}/app"
    pyrun.ok("tag", base_image, name)
    done = pyrun("push", "-q", name, env=registries(f'[registry."{host}"]\ninsecure = false'))
    assert done.rc == 1
    assert "certificate" in done.err.splitlines()[0]
    trusting = tmp_path / "certs.d" / host
    trusting.mkdir(parents=True)
    shutil.copy(authority.ca, trusting)
    assert pyrun.ok("push", "-q", name, env=registries('certs-dirs = ["certs.d"]')) == f"{name}:latest"
    env = registries(f'[registry."{host}"]\nca = ["{authority.ca}"]')
    assert pyrun.ok("pull", "-q", name, env=env) == f"{name}:latest"
    env = registries(f'[registry."{host}"]\ninsecure = true')
    assert pyrun.ok("pull", "-q", name, env=env) == f"{name}:latest"
    pyrun.ok("rmi", name)


def test_client_certificate(
    pyrun: Pyrun, base_image: str, serve: Start, authority: Authority, tmp_path: Path,
    registries: Callable[[str], dict[str, str]],
) -> None:  # fmt: skip
    """A registry that wants one gets what is in certs.d."""
    server = serve(authority=authority, want_client=True)
    directory = tmp_path / "certs.d" / server.host
    directory.mkdir(parents=True)
    shutil.copy(authority.ca, directory)
    env = registries('certs-dirs = ["certs.d"]')
    pyrun.ok("tag", base_image, f"{server.host}/app")
    assert pyrun("push", "-q", f"{server.host}/app", env=env).rc == 1
    shutil.copy(authority.client_cert, directory / "me.cert")
    shutil.copy(authority.client_key, directory / "me.key")
    assert pyrun.ok("push", "-q", f"{server.host}/app", env=env) == f"{server.host}/app:latest"
    pyrun.ok("rmi", f"{server.host}/app")


# --- login -----------------------------------------------------------------------------------------------------


def test_login_push_pull_logout(pyrun: Pyrun, base_image: str, private: DockerRegistry, home: Path) -> None:
    """Without credentials access is denied and the hint says how to get it; with them it works; logout ends it."""
    name = f"{private.host}/app:1"
    pyrun.ok("tag", base_image, name)
    denied = pyrun("push", "-q", name)
    assert denied.rc == 1
    assert "access denied" in denied.err
    assert f"pyrun login {private.host}" in denied.err
    done = login(pyrun, private.host)
    assert (done.rc, done.out) == (0, "Login Succeeded\n"), str(done)
    assert f"WARNING! Your credentials are stored unencrypted in '{home}/config.json'." in done.err
    assert list(json.loads((home / "config.json").read_text())["auths"]) == [private.host]
    assert pyrun.ok("push", "-q", name) == name
    pyrun.ok("rmi", name)
    assert pyrun.ok("run", "-q", "--rm", "--network", "none", name, "echo", "hi") == "hi"
    again = pyrun("login", private.host)
    assert (again.rc, again.out, again.err) == (0, "Login Succeeded\n", "Authenticating with existing credentials...\n")
    assert pyrun.ok("logout", private.host) == f"Removing login credentials for {private.host}"
    assert pyrun.ok("logout", private.host) == f"Not logged in to {private.host}"
    assert pyrun("pull", "-q", name).rc == 1
    pyrun.ok("rmi", name)


def test_login_with_a_wrong_password(pyrun: Pyrun, private: DockerRegistry, home: Path) -> None:
    """Refused in one line, and nothing is kept."""
    done = login(pyrun, private.host, password="wrong")
    assert (done.rc, done.out) == (1, "")
    assert f"access denied for user {USER}" in done.err.splitlines()[0]
    assert not home.exists()


def test_login_with_the_password_in_a_flag(pyrun: Pyrun, private: DockerRegistry) -> None:
    """It works, with docker's warning."""
    done = pyrun("login", "-u", USER, "-p", PASSWORD, private.host)
    assert done.rc == 0
    assert done.err.splitlines()[0] == ("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("-p", "x", "--password-stdin", "a.example"), "--password and --password-stdin are mutually exclusive"),
        (("--password-stdin", "a.example"), "--password-stdin needs --username"),
        (("a.example",), "standard input is no terminal to ask on"),
        (("-u", "me", "--password-stdin", "a.example"), "the password is empty"),
        (("-u", "me", "-p", "x", "a b"), "registry 'a b': not a host[:port]"),
    ],
)
def test_login_refuses(pyrun: Pyrun, home: Path, args: tuple[str, ...], words: str) -> None:
    """Flags that contradict each other, and nobody to ask."""
    done = pyrun("login", *args)
    assert done.rc == 125
    assert words in done.err
    assert not home.exists()


def test_login_asks_on_a_terminal(pyrun: Pyrun, private: DockerRegistry) -> None:
    """Name and password are asked for; the password is not shown as it is typed."""
    screen = Screen(pyrun, "login", private.host)
    screen.read_until(b"Username: ")
    screen.type(USER.encode() + b"\n")
    screen.read_until(b"Password: ")
    screen.type(PASSWORD.encode() + b"\n")
    assert screen.end() == 0, screen.text
    assert b"Login Succeeded" in screen.text
    assert PASSWORD.encode() not in screen.text


def test_login_through_a_helper(
    pyrun: Pyrun, base_image: str, private: DockerRegistry, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The secret goes to docker-credential-files and comes from there; config.json has the registry's name only."""
    script = tmp_path / "bin" / "docker-credential-files"
    script.parent.mkdir()
    script.write_text(
        f"#!/bin/sh\ncase $1 in\nstore) cat > {tmp_path}/secret ;;\nerase) rm {tmp_path}/secret ;;\n"
        f"get) cat {tmp_path}/secret 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }} ;;\n"
        "esac\n"
    )
    script.chmod(0o755)
    home.mkdir()
    (home / "config.json").write_text('{"credsStore": "files"}')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    done = login(pyrun, private.host)
    assert (done.rc, done.out, done.err) == (0, "Login Succeeded\n", "")
    assert 'auth"' not in (home / "config.json").read_text()
    kept = json.loads((tmp_path / "secret").read_text())
    assert kept == {"ServerURL": private.host, "Username": USER, "Secret": PASSWORD}
    name = f"{private.host}/helped"
    pyrun.ok("tag", base_image, name)
    assert pyrun.ok("push", "-q", name) == f"{name}:latest"
    pyrun.ok("rmi", name)
    assert pyrun.ok("run", "-q", "--rm", "--network", "none", name, "echo", "hi") == "hi"
    pyrun.ok("rmi", name)
    pyrun.ok("logout", private.host)
    assert not (tmp_path / "secret").exists()


def test_interrupted_at_the_password(pyrun: Pyrun, private: DockerRegistry, home: Path) -> None:
    """^C at the prompt ends it with 130; what is typed is shown again, and nothing is kept."""
    screen = Screen(pyrun, "login", "-u", "me", private.host)
    screen.read_until(b"Password: ")
    assert not screen.echoes()
    screen.type(b"\x03")
    assert screen.end(screen.echoes) == 130, screen.text
    assert not home.exists()


@requires(tools=("podman",))
def test_login_of_podman(
    pyrun: Pyrun, base_image: str, private: DockerRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is logged in with podman need not do it again."""
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    name = f"{private.host}/podmans"
    pyrun.ok("tag", base_image, name)
    assert pyrun("push", "-q", name).rc == 1
    subprocess.run(
        ["podman", "login", "--tls-verify=false", "-u", USER, "--password-stdin", private.host],
        input=PASSWORD.encode(), check=True, capture_output=True,
    )  # fmt: skip
    assert pyrun.ok("push", "-q", name) == f"{name}:latest"
    pyrun.ok("rmi", name)


# --- search ----------------------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers searches as Docker Hub does."""

    queries: list[str] = []

    def do_GET(self) -> None:
        self.queries.append(self.path)
        results = [
            {"name": "redis", "description": "d" * 60, "is_official": True, "star_count": 12000},
            {"name": "me/redis", "description": "\x1b[31mred\n", "is_official": False, "star_count": 3},
        ]
        body = json.dumps({"num_results": 2, "results": results}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    """The host of a server that knows two images called redis."""
    Hub.queries.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"localhost:{server.server_address[1]}"
        server.shutdown()


def test_search(pyrun: Pyrun, hub: str, registries: Callable[[str], dict[str, str]]) -> None:
    """docker's table, filters and formats; nothing of the server's steers the terminal."""
    env = registries(f'[registry."docker.io"]\nlocation = "{hub}"\ninsecure = true')
    lines = pyrun.ok("search", "redis", env=env).splitlines()
    assert lines[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert lines[1].split() == ["redis", "d" * 44 + "…", "12000", "[OK]"]
    assert lines[2].split() == ["me/redis", "[31mred", "3"]
    assert Hub.queries[-1] == "/v1/search?q=redis&n=25"
    out = pyrun.ok("search", "--no-trunc", "--limit", "1", "--format", "{{.Name}} {{.Description}}", "redis", env=env)
    assert out == f"redis {'d' * 60}"
    assert Hub.queries[-1].endswith("n=1")
    names = ("--format", "{{.Name}}")
    assert pyrun.ok("search", "-f", "stars=100", *names, "redis", env=env) == "redis"
    assert pyrun.ok("search", "-f", "is-official=false", *names, "redis", env=env) == "me/redis"
    for wrong in (("-f", "star=1"), ("-f", "stars=x"), ("-f", "is-official=x"), ("--limit", "0"), ("--limit", "101")):
        assert pyrun("search", *wrong, "redis", env=env).rc == 125


def test_search_in_a_registry_that_cannot(pyrun: Pyrun, pushed: str, plain: DockerRegistry) -> None:
    """Its list of repositories is searched instead; where nothing answers, the error says so."""
    assert pyrun.ok("search", "--format", "{{.Name}}", f"{plain.host}/APP") == f"{plain.host}/team/app"
    done = pyrun("search", "redis")
    assert done.rc == 1
    assert "connection refused" in done.err


# --- the terminal ----------------------------------------------------------------------------------------------


class Screen:
    """A command on a terminal of its own: what it writes, what is typed."""

    def __init__(self, pyrun: Pyrun, *args: str, env: dict[str, str] | None = None) -> None:
        self.text = b""
        pid, self._fd = pty.fork()
        if pid == 0:
            os.environ.update({**pyrun.environ, "TERM": "xterm", "COLUMNS": "100", **(env or {})})
            os.execv(pyrun.command, [pyrun.command, *args])
        self.pid = pid

    def read_until(self, wanted: bytes) -> None:
        while wanted not in self.text:
            assert self._read(), f"{wanted!r} never came:\n{self.text.decode()}"

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._fd)[3] & termios.ECHO)

    def end(self, holds: Callable[[], bool] = lambda: True) -> int:
        """The exit code, once everything is read; `holds` is asserted of the terminal before it is closed."""
        while self._read():
            pass
        _, status = os.waitpid(self.pid, 0)
        assert holds()
        os.close(self._fd)
        return os.waitstatus_to_exitcode(status)

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.text += data
        return bool(data)


class Slow(http.server.BaseHTTPRequestHandler):
    """A registry whose layer never ends."""

    protocol_version = "HTTP/1.1"
    documents: dict[str, tuple[str, bytes]] = {}

    def do_GET(self) -> None:
        kind, body = self.documents.get(self.path, ("", b""))
        if kind == "layer":
            self.send_response(200)
            self.send_header("Content-Length", str(1 << 30))
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1024))
                    time.sleep(0.01)
            except OSError:
                return
        self.send_response(200 if kind or self.path == "/v2/" else 404)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def slow() -> Iterator[str]:
    """The name of an image whose layer takes for ever."""
    import hashlib

    layer = "sha256:" + "1" * 64
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer]}}
    ).encode()
    config_digest = "sha256:" + hashlib.sha256(config).hexdigest()
    kind = "application/vnd.oci.image.manifest.v1+json"
    descriptor = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": 1 << 30}
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config_digest,
                "size": len(config),
            },
            "layers": [descriptor],
        }
    ).encode()
    Slow.documents = {
        "/v2/slow/manifests/latest": (kind, manifest),
        f"/v2/slow/blobs/{config_digest}": ("application/json", config),
        f"/v2/slow/blobs/{layer}": ("layer", b""),
    }
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"localhost:{server.server_address[1]}/slow"
        server.shutdown()


@pytest.mark.parametrize("how", ["keys", "SIGTERM"])
@pytest.mark.parametrize("command", [("pull",), ("run", "--rm", "--network", "none"), ("run", "--rm", "-it")])
def test_interrupted_pull_leaves_the_terminal_clean(
    pyrun: Pyrun, slow: str, command: tuple[str, ...], how: str
) -> None:
    """Bars while it lasts; after ^C, or SIGTERM, the cursor shows again, no image and no container is left."""
    screen = Screen(pyrun, *command, slow)
    screen.read_until(b"/1.07GB")
    if how == "keys":
        screen.type(b"\x03")
    else:
        os.kill(screen.pid, signal.SIGTERM)
    code = screen.end()
    assert code in ((130,) if how == "keys" else (143, -signal.SIGTERM)), (code, screen.text)
    assert b"Traceback" not in screen.text
    assert screen.text.rindex(b"\x1b[?25h") > screen.text.rindex(b"\x1b[?25l")
    last = b"pyrun: pull interrupted: what came stays; pull again goes on\r\n"
    assert screen.text.endswith(last) == (how == "keys" and command == ("pull",))
    assert pyrun.ok("images", "-q", slow) == ""
    assert pyrun.ok("ps", "-aq") == ""


def test_bars_on_a_terminal(pyrun: Pyrun, pushed: str) -> None:
    """Docker's last lines come below the bars, and the full name is the last."""
    screen = Screen(pyrun, "pull", pushed)
    assert screen.end() == 0
    assert screen.text.endswith(pushed.encode() + b"\r\n")
    assert b"Pull complete" in screen.text
    assert screen.text.index(b"Digest: ") > screen.text.rindex(b"\x1b[?25h")


def test_a_push_that_cannot_go_anywhere_says_so_first(pyrun: Pyrun, base_image: str, private: DockerRegistry) -> None:
    """Nobody there, or a login is wanted: no layer is Preparing or Pushing before that."""
    for name in ("localhost:1/x:1", f"{private.host}/x:1"):
        pyrun.ok("tag", base_image, name)
        done = pyrun("push", name)
        pyrun.ok("rmi", name)
        assert done.rc == 1, str(done)
        assert done.out == f"The push refers to repository [{name.rpartition(':')[0]}]\n"
