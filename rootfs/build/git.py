# SPDX-License-Identifier: Apache-2.0
"""Clones of git repositories as build contexts and for ADD, by git(1), which gets nothing it could misuse.

A repository is hostile until shown otherwise: protocols are an allow-list, submodules included; no hooks, no templates,
no configuration of the system or the user, no GIT_* of the environment, no prompt for a password; a ref or path that
begins with "-" never reaches git's command line (CVE-2018-17456 and its relatives); the directory asked for is resolved
inside the checkout.
"""

from __future__ import annotations

import os

from pyrun.rootfs.inroot import open_directory, remove_path
from pyrun.runtime.errors import NotFound, PyrunError, UsageError
from pyrun.runtime.events import step

from . import giturl
from .remote import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .giturl import Repository

TIMEOUT_S = 1800
SETPRIV, UNSHARE = "/usr/bin/setpriv", "/usr/bin/unshare"
_KEPT = (
    "HOME", "PATH", "USER", "LOGNAME", "SSH_AUTH_SOCK", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
)  # fmt: skip
_CONFIG = (
    "protocol.allow=never",
    "protocol.http.allow=always",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    "protocol.git.allow=always",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.symlinks=true",
    "core.autocrlf=false",
    "advice.detachedHead=false",
    "fetch.fsckObjects=true",
    "http.followRedirects=initial",  # as git's default, said here: a redirect of a later request is refused
    "init.defaultBranch=main",
    # old tools wrote these into histories that many still have; none of them is dangerous
    *(f"fetch.fsck.{what}=ignore" for what in ("badDate", "badDateOverflow", "badEmail", "badName", "badTimezone",
      "missingEmail", "missingSpaceBeforeDate", "missingSpaceBeforeEmail", "zeroPaddedFilemode")),
)  # fmt: skip

# git asks this for a login at the origin of the URL; the shell's own printf has no command line that others could read
_HELPER = (
    """!f() { test "$1" != get || printf 'username=%s\\npassword=%s\\n' "$PYRUN_GIT_USER" "$PYRUN_GIT_PASSWORD"; }; f"""
)

_SSH = "ssh -oBatchMode=yes"
# ssh looks for keys where /etc/passwd says that the user is at home, whatever $HOME is
_SSH_AGENT = f"{_SSH} -F /dev/null -oIdentityFile=none"
_NOBODY = {"HOME": "/dev/null", "GIT_SSH_COMMAND": f"{_SSH_AGENT} -oIdentityAgent=none"}


def clone(
    repository: Repository | str,
    ref: str = "",
    subdir: str = "",
    keep_git_dir: bool | None = None,
    scratch: str = "",
    *,
    checksum: str = "",
    allow_file: bool = False,
    trusted: bool = True,
    agent: str = "",
) -> str:
    """A checkout of the repository in a new directory of `scratch`; the path of the directory asked for in it.

    Args:
        repository: a URL, with or without #ref:subdir, or what giturl.parse() made of one.
        ref, subdir, checksum: branch, tag or commit; directory; commit that the ref must be: if the URL has none.
        keep_git_dir: whether .git stays; None leaves it to the URL, else it goes.
        allow_file: file:// may be cloned.
        trusted: the user named the repository, so git may log in as the user (~/.netrc, keys, agent). What a
            Dockerfile names gets nothing of that, or it could fetch what only the user may read, and send it elsewhere.
        agent: the socket of the one ssh agent that an untrusted repository may use, "" for none.

    Raises UsageError for a bad URL, NotFound for a ref or directory that is not there, PyrunError with git's reason.
    """
    if isinstance(repository, str):
        found = giturl.parse(repository, allow_file=allow_file)
        if found is None:
            raise UsageError(f"clone {repository}", "no git URL")
        repository = found
    repository = repository.replace(
        ref=repository.ref or ref, subdir=repository.subdir or subdir, commit=repository.commit or checksum
    )
    giturl.check(repository)
    import tempfile

    keep = bool(repository.keep_git) if keep_git_dir is None else keep_git_dir
    top = tempfile.mkdtemp(prefix="git-", dir=scratch)
    git = _Git(repository.remote, top, allow_file, trusted, agent)
    with step("build", f"git clone {shown(repository.remote)} {repository.ref}".rstrip()):
        git.run(["init", "--quiet", "--template="])
        git.run(["remote", "add", "origin", git.url])
        commit = _fetch(git, repository)
        git.run(["checkout", "--quiet", "--force", "--detach", commit, "--"])
        if repository.submodules and os.path.lexists(os.path.join(top, ".gitmodules")):
            git.run(["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"])
    if not keep:
        _remove_git(top)
    os.chmod(top, 0o755)  # RUN --mount=type=bind shows it to any user of a container
    return _inside(top, repository)


def _fetch(git: _Git, repository: Repository) -> str:
    """Fetches what is wanted, one commit deep; the commit's id."""
    ref = repository.ref or "HEAD"
    if _is_commit(ref):
        try:
            git.run(["fetch", "--quiet", "--depth=1", "--no-tags", "--", "origin", ref])
        except PyrunError:
            # not every server gives a commit by its id, and none by a part of it: take everything
            git.run(["fetch", "--quiet", "--tags", "--", "origin", "+refs/heads/*:refs/remotes/origin/*"])
            commit = git.run(["rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"], missing=ref)
            return _checked(commit, repository)
    else:
        try:
            git.run(["fetch", "--quiet", "--depth=1", "--no-tags", "--", "origin", ref], missing=ref)
        except PyrunError as error:
            if "shallow" not in error.why:  # a plain file server ("dumb" protocol) has whole histories only
                raise
            git.run(["fetch", "--quiet", "--no-tags", "--", "origin", ref], missing=ref)
    commit = git.run(["rev-parse", "--verify", "--quiet", "FETCH_HEAD^{commit}"], missing=ref)
    return _checked(commit, repository)


def _is_commit(ref: str) -> bool:
    return 7 <= len(ref) <= 64 and all(char in "0123456789abcdef" for char in ref)


def _checked(commit: str, repository: Repository) -> str:
    if repository.commit and not commit.startswith(repository.commit):
        raise PyrunError(
            f"clone {shown(repository.remote)}",
            f"'{repository.ref or 'HEAD'}' is commit {commit}, not {repository.commit}",
        )
    return commit


class _Git:
    """Runs git in one directory, with nothing of the outside but what is listed above."""

    def __init__(self, remote: str, directory: str, allow_file: bool, trusted: bool = True, agent: str = "") -> None:
        self.remote = shown(remote)  # for messages
        self.url, login = _login(remote)
        self.directory = directory
        self.trusted = trusted
        config = [*_CONFIG, f"protocol.file.allow={'always' if allow_file else 'never'}"]
        if login:
            config.append(f"credential.{_origin(self.url)}.helper={_HELPER}")
        self.environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        self.environment |= {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "GIT_SSH_COMMAND": _SSH,
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_CEILING_DIRECTORIES": os.path.dirname(directory),
            "LC_ALL": "C",
            # in the environment, so that the git of a submodule gets them too
            "GIT_CONFIG_COUNT": str(len(config)),
            **login,
        }
        for number, pair in enumerate(config):
            key, _, value = pair.partition("=")
            self.environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        if not trusted:
            self.environment |= _NOBODY
            self.environment.pop("SSH_AUTH_SOCK", None)
            if agent:
                self.environment |= {"SSH_AUTH_SOCK": agent, "GIT_SSH_COMMAND": _SSH_AGENT}

    def run(self, arguments: Sequence[str], *, missing: str = "") -> str:
        """What git prints, stripped. Raises PyrunError with the last of what it says; NotFound if `missing` is."""
        import shutil
        import subprocess

        if shutil.which("git", path=self.environment.get("PATH")) is None:
            raise PyrunError(f"clone {self.remote}", "there is no git on this machine", hint="apt install git")
        try:
            done = subprocess.run(
                [*_tied(), "git", "--no-optional-locks", *arguments],
                cwd=self.directory, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True,
                timeout=TIMEOUT_S, check=False, umask=0o022,  # modes count in the content key
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise PyrunError(f"clone {self.remote}", f"git took longer than {TIMEOUT_S} seconds") from None
        if done.returncode == 0:
            return done.stdout.decode(errors="replace").strip()
        raise self._failed(done.stderr.decode(errors="replace"), missing)

    def _failed(self, said: str, missing: str) -> PyrunError:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        text = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1] if lines else "")
        why = text.removeprefix("fatal: ").removeprefix("error: ")
        if missing and (not why or "couldn't find remote ref" in why or "unknown revision" in why):
            return NotFound(f"clone {self.remote}", f"no branch, tag or commit '{missing}'")
        for words, reason, hint in _REASONS:
            if words in said:
                if not self.trusted and reason.startswith("access denied"):
                    hint = "a Dockerfile has no use of your keys, but with pyrun build --ssh default of the agent"
                return PyrunError(f"clone {self.remote}", reason, hint=hint)
        return PyrunError(f"clone {self.remote}", why or "git failed")


def _login(remote: str) -> tuple[str, dict[str, str]]:
    """The URL without the user and password in it, and those as variables for _HELPER; as it was, if there are none.

    Arguments of git, and of its helpers, are there for every user of the machine to see; and .git/config may be kept.
    """
    scheme, _, rest = remote.partition("://")
    host, slash, path = rest.partition("/")
    login, _, host = host.rpartition("@")
    user, colon, password = login.partition(":")
    if scheme not in ("http", "https") or not colon:
        return remote, {}
    from urllib.parse import unquote

    user, password = unquote(user), unquote(password)
    if any(char in user + password for char in "\n\r\0"):  # lines of git's protocol (CVE-2020-5260)
        raise UsageError(f"clone {shown(remote)}", "a control character in its password")
    return f"{scheme}://{host}{slash}{path}", {"PYRUN_GIT_USER": user, "PYRUN_GIT_PASSWORD": password}


def _origin(url: str) -> str:
    """Scheme, host and port: nobody else is told the password, wherever he redirects to."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _tied() -> tuple[str, ...]:
    """What makes git and its helpers end with the process that started them: a build may be killed at any moment."""
    # not preexec_fn, which may deadlock in a process with threads; setpriv(1) and unshare(1) are parts of util-linux
    if not os.access(SETPRIV, os.X_OK):
        return ()
    tied: tuple[str, ...] = (SETPRIV, "--pdeathsig", "KILL", "--")
    if os.geteuid() == 0 and os.access(UNSHARE, os.X_OK):
        # the signal reaches git alone, not the helper that waits for the network: that ends with git's PID namespace
        tied += (UNSHARE, "--pid", "--fork", "--kill-child", "--")
    return tied


_REASONS = (
    ("could not read Username", "access denied, or there is no such repository", "a private one can be cloned by ssh"),
    ("Permission denied (publickey", "access denied: no key that the server knows", "see ssh-add -l"),
    ("Could not resolve host", "cannot resolve the host's name", "is the network up, is the name right?"),
    ("Connection refused", "connection refused", ""),
    ("Couldn't connect to server", "cannot connect to the server", ""),
    ("timed out", "timed out", ""),
    ("certificate", "TLS: the server's certificate is not trusted", ""),
    ("Repository not found", "no such repository", ""),
    ("does not appear to be a git repository", "no such repository", ""),
    ("transport 'file' not allowed", "file URLs are not allowed", ""),
)


def _remove_git(top: str) -> None:
    """.git of the checkout, and the files of that name that submodules have."""
    remove_path(os.path.join(top, ".git"))
    for where, directories, files in os.walk(top):
        if ".git" in files:
            os.unlink(os.path.join(where, ".git"))
        if ".git" in directories:
            directories.remove(".git")
            remove_path(os.path.join(where, ".git"))


def _inside(top: str, repository: Repository) -> str:
    """The directory asked for, symlinks resolved inside the checkout; the path that has none in it."""
    root = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_directory(root, os.fsencode(repository.subdir.strip("/")))
        try:
            return os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    except OSError as error:
        raise NotFound(
            f"clone {shown(repository.remote)}",
            f"no directory '{repository.subdir}' in it ({(error.strerror or '').lower()})",
        ) from error
    finally:
        os.close(root)
