# SPDX-License-Identifier: Apache-2.0
"""pyrun login: tries a user's name and password at a registry, and keeps them for pull and push."""

from __future__ import annotations

import os
import sys

from pyrun.runtime.cli.flags import SWITCH, Args, Command, Flag
from pyrun.runtime.errors import PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.rootfs.registry.credentials import Credentials
    from pyrun.runtime.cli.context import Context

INSECURE = "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n"
UNENCRYPTED = """
WARNING! Your credentials are stored unencrypted in '{}'.
Configure a credential helper to remove this warning. See
https://docs.docker.com/go/credential-store/

"""


def run(args: Args, ctx: Context) -> int:
    """Asks for what the flags do not say. docker's words: "Login Succeeded"."""
    from pyrun.runtime.engine import login as engine

    check(args)
    domain = engine.registry_of(args.arguments[0] if args.arguments else "")
    kept = None
    if not any(args.given(name) for name in ("username", "password", "password-stdin")):
        kept = engine.known(domain)
    if kept is not None:
        ctx.stderr.write("Authenticating with existing credentials...\n")
        try:
            engine.login(domain, kept, keep=False)
        except PyrunError as error:
            if not sys.stdin.isatty():
                raise
            ctx.stderr.write(f"Login did not succeed, error: {error}\n")
        else:
            ctx.print("Login Succeeded")
            return 0
    place = engine.login(domain, asked(args, ctx, kept, domain))
    if os.path.isabs(place):
        ctx.stderr.write(UNENCRYPTED.format(place))
    ctx.print("Login Succeeded")
    return 0


def check(args: Args) -> None:
    """docker's rules between the flags. Raises UsageError."""
    if args.given("password") and args.on("password-stdin"):
        raise UsageError("login", "--password and --password-stdin are mutually exclusive", hint="leave --password out")
    if args.on("password-stdin") and not args.text("username"):
        raise UsageError("login", "--password-stdin needs --username", hint="pyrun login -u NAME --password-stdin")


def asked(args: Args, ctx: Context, kept: Credentials | None, domain: str) -> Credentials:
    """Name and password from the flags, standard input or the terminal. Raises UsageError where none says them."""
    from pyrun.rootfs.registry.credentials import Credentials

    if args.given("password"):
        ctx.stderr.write(INSECURE)
    username, password = args.text("username"), args.text("password")
    if args.on("password-stdin"):
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    elif not (username and password) and not sys.stdin.isatty():
        raise UsageError(
            "login", "standard input is no terminal to ask on", hint="pyrun login -u NAME --password-stdin < FILE"
        )
    if not username:
        username = ask_name(ctx, kept.username if kept else "", domain)
    if not password and not args.on("password-stdin"):
        password = ask_password()
    for what, value in (("username", username), ("password", password)):
        if not value:
            raise UsageError("login", f"the {what} is empty")
    return Credentials(username, password)


def ask_name(ctx: Context, default: str, domain: str) -> str:
    """Asks for the user's name; Enter is the one that is known."""
    if domain == "docker.io":
        ctx.print("Log in with your Docker ID, or your e-mail address, to push and pull images from Docker Hub.")
    ctx.stdout.write(f"Username ({default}): " if default else "Username: ")
    ctx.stdout.flush()
    return sys.stdin.readline().strip() or default


def ask_password() -> str:
    """Asks without echo, on the terminal."""
    import getpass

    try:
        return getpass.getpass("Password: ")
    except EOFError:
        return ""


LOGIN = Command(
    "login",
    "[SERVER]",
    "Log in to a registry (default: Docker Hub)",
    run,
    (
        Flag("username", "u", help="user name", metavar="NAME"),
        Flag("password", "p", help="password or token; --password-stdin is safer", metavar="PASSWORD"),
        Flag("password-stdin", kind=SWITCH, help="take the password from standard input"),
    ),
    most=1,
)
