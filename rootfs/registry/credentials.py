# SPDX-License-Identifier: Apache-2.0
"""Who the user is at a registry: docker's config.json, its credential helpers, and podman's auth.json.

    $DOCKER_CONFIG/config.json (~/.docker)       read and written: auths, credHelpers, credsStore
    $REGISTRY_AUTH_FILE, podman's auth.json      read after it

A helper is a program docker-credential-<name> with the verbs get, store and erase: JSON or the registry's key on its
standard input, JSON or a message on its standard output (github.com/docker/docker-credential-helpers).
"""

from __future__ import annotations

import fcntl
import os

from pyrun.rootfs import refs
from pyrun.rootfs.registry.config import DOCKER_HUB, config_home
from pyrun.runtime import files
from pyrun.runtime.errors import PyrunError
from pyrun.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HUB_KEY = "https://index.docker.io/v1/"  # what docker calls docker.io in this file
HUB_NAMES = (refs.DEFAULT_DOMAIN, "index.docker.io", DOCKER_HUB)
TOKEN_USER = "<token>"  # the user name by which helpers say that the secret is an identity token
HELPER_TIMEOUT_S = 30.0
HELPER_OUTPUT = 1 << 20  # bytes
NOT_FOUND = "credentials not found in native keychain"  # what a helper says, word for word
#: what a helper gets of the environment: enough to find its keyring, its cloud account, and a place to ask on
HELPER_ENV = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "TERM", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
    "DBUS_SESSION_BUS_ADDRESS", "DOCKER_CONFIG", "GNUPGHOME", "GPG_TTY", "PASSWORD_STORE_DIR", "SSH_AUTH_SOCK",
)  # fmt: skip
HELPER_ENV_PREFIXES = ("XDG_", "LC_", "AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "SSL_CERT_")
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")


class Credentials(Record):
    """A user's name and password, or the token that stands for them."""

    username: str
    password: str
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, …)"  # no secret in a traceback


def lookup(domain: str, *, path: str = "") -> Credentials | None:
    """The credentials for a registry's repository `path`, None if there are none.

    Raises PyrunError for a file that cannot be understood, and for a helper that fails.
    """
    domain = refs.DEFAULT_DOMAIN if domain in HUB_NAMES else domain
    config = _read(config_file())
    if helper := _helper(config, domain):
        for key in _keys(domain):
            found = _ask(helper, key)
            if found is not None:
                return found
    if found := _in_auths(config, config_file(), domain, ""):
        return found
    for file in podman_files():
        if found := _in_auths(_read(file), file, domain, path):
            return found
    return None


def store(domain: str, credentials: Credentials) -> str:
    """Remembers the credentials; gives where: the file, or the helper's name. Raises PyrunError."""
    path = config_file()
    with _changing(path) as change:
        helper = _helper(change.config, domain)
        if helper:
            user = TOKEN_USER if credentials.identity_token else credentials.username
            secret = credentials.identity_token or credentials.password
            _call(helper, "store", _json({"ServerURL": _key(domain), "Username": user, "Secret": secret}))
        auths = change.config.setdefault("auths", {})
        for key in [key for key in auths if _names(key, domain)]:
            del auths[key]  # the other forms of the same registry
        auths[_key(domain)] = {} if helper else _entry(credentials)
        change.write()
    return f"docker-credential-{helper}" if helper else path


def erase(domain: str) -> bool:
    """Forgets the credentials of a registry; whether there were any. Raises PyrunError."""
    path = config_file()
    if not os.path.exists(path):
        return False
    known = False
    with _changing(path) as change:
        if helper := _helper(change.config, domain):
            for key in _keys(domain):
                if _ask(helper, key) is not None:
                    _call(helper, "erase", key.encode())
                    known = True
        auths = change.config.get("auths") or {}
        for key in [key for key in auths if _names(key, domain)]:
            del auths[key]
            known = True
        if known:
            change.write()
    return known


def config_file() -> str:
    """docker's config.json of this user."""
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return os.path.join(os.path.abspath(directory), "config.json")


def podman_files() -> list[str]:
    """podman's files, the one that counts most first: containers-auth.json(5)."""
    named = os.environ.get("REGISTRY_AUTH_FILE")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    found = [named] if named else []
    found += [f"{runtime}/containers/auth.json"] if runtime else []
    return [*found, f"/run/containers/{os.geteuid()}/auth.json", f"{config_home()}/containers/auth.json"]


# ---- the file --------------------------------------------------------------------------------------------------------


class _changing:  # noqa: N801 - reads as a statement: `with _changing(path) as change`
    """Reads the file, keeps others from changing it meanwhile, and writes it in one step when asked to."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)  # a link to the file stays one
        self.config: dict[str, Any] = {}
        self._fd = -1

    def __enter__(self) -> _changing:
        directory = os.path.dirname(self.path)
        try:
            files.private_dir(directory)
            self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self.config = _read(self.path)
        except OSError as error:
            self.__exit__()
            raise _unwritable(self.path, error) from None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def write(self) -> None:
        """Replaces the file: mode 0600, and the owner that it had. Everything of it that is not ours stays."""
        import json

        try:
            owner = os.stat(self.path) if os.path.exists(self.path) else None
            files.write_atomic(self.path, json.dumps(self.config, indent="\t", ensure_ascii=False).encode() + b"\n")
            if owner is not None and owner.st_uid != os.geteuid() == 0:
                os.chown(self.path, owner.st_uid, owner.st_gid)  # sudo with the user's HOME
        except OSError as error:
            raise _unwritable(self.path, error) from None


def _unwritable(path: str, error: OSError) -> PyrunError:
    hint = "DOCKER_CONFIG names another directory for config.json"
    return PyrunError(f"write {path}", (error.strerror or str(error)).lower(), hint=hint)


def _read(path: str) -> dict[str, Any]:
    """The JSON object in a file; {} when there is none. Raises PyrunError."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise PyrunError(f"read {path}", (error.strerror or str(error)).lower()) from None
    if not data.strip():
        return {}
    import json

    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        place = f":{error.lineno}:{error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        why = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise PyrunError(f"{path}{place}", f"not JSON: {why[:1].lower()}{why[1:]}") from None
    if not isinstance(value, dict):
        raise PyrunError(path, "must be a JSON object")
    for key in ("auths", "credHelpers"):
        if value.get(key, {}) is None:
            del value[key]  # docker writes null for a map that it never made
        if not isinstance(value.get(key, {}), dict):
            raise PyrunError(f"{path}: {key}", "must be an object")
    return value


def _in_auths(config: dict[str, Any], path: str, domain: str, repository: str) -> Credentials | None:
    """The entry of `auths` for the repository, else for its namespaces (podman's keys may have them), else the host."""
    auths: dict[str, Any] = config.get("auths", {})
    name = f"{domain}/{repository}" if repository else domain
    while "/" in name:
        if name in auths:
            return _decode(auths[name], path, name)
        name = name.rpartition("/")[0]
    keys = _keys(domain)
    for key in [*(key for key in keys if key in auths), *(key for key in auths if _names(key, domain))]:
        found = _decode(auths[key], path, key)
        if found is not None:
            return found
    return None


def _decode(entry: Any, path: str, key: str) -> Credentials | None:
    """One entry of `auths`; None for an empty one, which says that a helper has the secret."""
    import base64

    what = f"{path}: auths['{key}']"
    if not isinstance(entry, dict) or not all(isinstance(entry.get(k, ""), str) for k in ("auth", "identitytoken")):
        raise PyrunError(what, "must be an object of strings")
    username, password = str(entry.get("username", "")), str(entry.get("password", ""))
    if entry.get("auth"):
        try:
            text = base64.b64decode(entry["auth"], validate=True).decode()
        except ValueError:
            raise PyrunError(what, "auth is not base64", hint="pyrun logout and pyrun login write it anew") from None
        username, colon, password = text.partition(":")
        if not colon:
            raise PyrunError(what, "auth is not USER:PASSWORD", hint="pyrun logout and pyrun login write it anew")
        password = password.strip("\0")
    token = entry.get("identitytoken", "")
    return Credentials(username, password, token) if username or token else None


def _entry(credentials: Credentials) -> dict[str, str]:
    import base64

    pair = f"{credentials.username}:{'' if credentials.identity_token else credentials.password}"
    entry = {"auth": base64.b64encode(pair.encode()).decode()}
    if credentials.identity_token:
        entry["identitytoken"] = credentials.identity_token
    return entry


def _key(domain: str) -> str:
    """What docker calls the registry in its file and to helpers."""
    return HUB_KEY if domain in HUB_NAMES else domain


def _keys(domain: str) -> tuple[str, ...]:
    """All the keys worth asking a helper for, docker's own first."""
    return (HUB_KEY, *HUB_NAMES[:2]) if domain in HUB_NAMES else (domain, f"https://{domain}")


def _names(key: str, domain: str) -> bool:
    """Whether a key of `auths` names the registry: https://host/v1/ and host/v2/ are docker's older forms of host."""
    host = key.partition("://")[2] or key
    host, slash, rest = host.partition("/")
    if slash and rest.strip("/") not in ("", "v1", "v2"):
        return False  # podman's key of a namespace
    return host == domain or (domain in HUB_NAMES and host in HUB_NAMES)


# ---- helpers ---------------------------------------------------------------------------------------------------------


def _helper(config: dict[str, Any], domain: str) -> str:
    """The name of the helper for a registry, "" if there is none. Raises PyrunError for one that is no name."""
    helpers: dict[str, Any] = config.get("credHelpers", {})
    name = next((helpers[key] for key in (*_keys(domain), *helpers) if key in helpers and _names(key, domain)), None)
    if name is None:
        name = config.get("credsStore") or ""
    if not isinstance(name, str) or not (name.replace("-", "").replace("_", "").replace(".", "") or "x").isalnum():
        raise PyrunError(f"{config_file()}: credential helper {name!r}", "not a name of letters, digits, '-', '_', '.'")
    return name


def _ask(helper: str, key: str) -> Credentials | None:
    """What the helper has for a key; None if nothing."""
    import json

    output = _call(helper, "get", key.encode())
    if output is None:
        return None
    try:
        value = json.loads(output)
        username, secret = value["Username"], value["Secret"]
        if not isinstance(username, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise PyrunError(f"docker-credential-{helper} get", "its answer is not JSON with Username and Secret") from None
    if username == TOKEN_USER:
        return Credentials("", "", secret)
    return Credentials(username, secret) if username or secret else None


def _call(helper: str, verb: str, data: bytes) -> bytes | None:
    """Runs the helper; its standard output, or None when it knows no such registry. Raises PyrunError."""
    import subprocess

    from pyrun.runtime.events import step

    what = f"docker-credential-{helper} {verb}"
    hint = f"{config_file()} names it in credsStore or credHelpers"
    with step("registry", what):
        try:
            done = subprocess.run(
                [f"docker-credential-{helper}", verb],
                input=data, capture_output=True, timeout=HELPER_TIMEOUT_S, env=_helper_environ(), check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise PyrunError(what, "there is no such program in PATH", hint=hint) from None
        except OSError as error:
            raise PyrunError(what, (error.strerror or "").lower(), hint=hint) from None
        except subprocess.TimeoutExpired:
            raise PyrunError(what, f"no answer in {HELPER_TIMEOUT_S:.0f} s", hint=hint) from None
    if done.returncode == 0 and len(done.stdout) <= HELPER_OUTPUT:
        return done.stdout
    said = (done.stdout.strip() or done.stderr.strip()).decode(errors="replace").partition("\n")[0][:200]
    if verb != "store" and said.lower() == NOT_FOUND:
        return None
    raise PyrunError(what, said or f"it ended with {done.returncode}", hint=hint)


def _helper_environ() -> dict[str, str]:
    env = os.environ
    chosen = {name: env[name] for name in HELPER_ENV if name in env}
    chosen |= {name: value for name, value in env.items() if name.startswith(HELPER_ENV_PREFIXES)}
    return chosen | {name: value for name, value in env.items() if name.upper() in PROXIES}


def _json(value: dict[str, str]) -> bytes:
    import json

    return json.dumps(value).encode()
