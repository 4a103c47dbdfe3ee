# SPDX-License-Identifier: Apache-2.0
"""ps: rows in docker's words, and which containers are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrun.netns.ports import PortMapping, PortSpec
from pyrun.runtime.cli import output
from pyrun.runtime.cli.context import Context
from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine import listing
from pyrun.runtime.engine.humanize import SECOND, parse_rfc3339, rfc3339
from pyrun.runtime.engine.options import RunOptions
from pyrun.runtime.errors import UsageError
from pyrun.runtime.paths import Paths

NOW = parse_rfc3339("2026-01-31T13:45:00Z")


def before(seconds: int) -> str:
    return rfc3339(NOW - seconds * SECOND)


def container(name: str, digit: str, created: int = 0, **fields: object) -> c.Container:
    plain = c.Container(
        id=digit * 64,
        name=name,
        created=before(created),
        image_id="sha256:" + "e" * 64,
        image_ref="flask-app",
        path="python",
        args=("app.py",),
        options=RunOptions("flask-app", publish=(PortSpec(5000, "tcp", "", 5000, 5000),)),
        labels=(("team", "a"), ("tier", "web")),
        exposed_ports=("5000/tcp", "9000/udp"),
        mounts=(
            c.MountPoint("volume", "/v", "/data", name="cache-of-everything"),
            c.MountPoint("bind", "/srv/x", "/x"),
            c.MountPoint("tmpfs", "", "/t"),
        ),
    )
    return plain.replace(**fields)


WEB = container("web", "a", 60)
DB = container(
    "db",
    "b",
    120,
    labels=(("team", "b"),),
    exposed_ports=(),
    options=RunOptions("pg", network="none"),
    image_ref="pg:15",
)
OLD = container("old_web", "c", 180, mounts=(), labels=())
RUNNING = c.State(
    c.RUNNING,
    started_at=before(5),
    ports=(PortMapping("tcp", "0.0.0.0", 5000, 5000), PortMapping("tcp", "::", 5000, 5000)),
)
FOUND = [
    (WEB, RUNNING),
    (DB, c.State(c.EXITED, exit_code=3, finished_at=before(3))),
    (OLD, c.State(c.PAUSED, started_at=before(7200))),
]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (c.State(), "Created"),
        (RUNNING, "Up 5 seconds"),
        (c.State(c.PAUSED, started_at=before(120)), "Up 2 minutes (Paused)"),
        (c.State(c.EXITED, exit_code=0, finished_at=before(3)), "Exited (0) 3 seconds ago"),
        (c.State(c.EXITED, exit_code=137, finished_at=before(3600)), "Exited (137) About an hour ago"),
        (c.State(c.EXITED, exit_code=None, finished_at=before(1)), "Exited (unknown) 1 second ago"),
        (c.State(c.EXITED, exit_code=None), "Exited (unknown)"),
        (c.State(c.RESTARTING, exit_code=1, finished_at=before(2)), "Restarting (1) 2 seconds ago"),
        (c.State(c.REMOVING), "Removal In Progress"),
        (c.State(c.DEAD), "Dead"),
    ],
)
def test_status(state: c.State, text: str) -> None:
    """docker's STATUS for every state; a code that nobody saw is unknown, never made up."""
    assert listing.status(state, NOW) == text


def test_row(tmp_path: Path) -> None:
    """The fields of a running container."""
    row = listing.row(Paths(str(tmp_path), str(tmp_path)), WEB, RUNNING)
    assert row["ID"] == "a" * 12
    assert row["Names"] == "web"
    assert row["Command"] == '"python app.py"'
    assert row["Ports"].get() == "0.0.0.0:5000->5000/tcp, [::]:5000->5000/tcp, 9000/udp"
    assert row["Labels"] == "team=a,tier=web"
    assert row["Label"]("tier") == "web"
    assert row["Mounts"].get() == "cache-of-every…,/srv/x"
    assert row["LocalVolumes"] == "1"
    assert row["Networks"] == "bridge"
    assert row["Size"] == "0B"
    whole = listing.row(Paths(str(tmp_path), str(tmp_path)), WEB, RUNNING, shorten=False)
    assert whole["ID"] == "a" * 64
    assert whole["Mounts"].get() == "cache-of-everything,/srv/x"


def test_stopped_containers_have_no_ports(tmp_path: Path) -> None:
    """docker shows the ports of running containers only."""
    row = listing.row(Paths(str(tmp_path), str(tmp_path)), WEB, c.State(c.EXITED, finished_at=before(1)))
    assert row["Ports"].get() == ""


@pytest.mark.parametrize(
    ("args", "short", "whole"),
    [
        (("-c", "x"), "sh -c x", "sh -c x"),
        (("-c", "sleep 1; echo done"), "sh -c sleep 1; echo…", "sh -c sleep 1; echo done"),
        (('a"b', "c\\d"), 'sh a\\"b c\\\\d', 'sh a\\"b c\\\\d'),
        (("a\nb\x1b[31m",), "sh a\\nb\\x1b[31m", "sh a\\nb\\x1b[31m"),
    ],
)
def test_command(args: tuple[str, ...], short: str, whole: str) -> None:
    """Quoted as Go's %q, cut at twenty characters; nothing in it reaches the terminal as a control character."""
    one = WEB.replace(path="sh", args=args)
    assert listing.command_line(one, shorten=True) == short
    assert listing.command_line(one, shorten=False) == whole


def test_size_is_what_was_written(tmp_path: Path) -> None:
    """Bytes of the regular files in upper; a hard link counts once, a symbolic link not at all."""
    upper = tmp_path / "upper"
    (upper / "sub").mkdir(parents=True)
    (upper / "sub" / "file").write_bytes(b"x" * 1000)
    (upper / "two").hardlink_to(upper / "sub" / "file")
    (upper / "link").symlink_to("/etc/passwd")
    target = (upper / "link").lstat().st_size
    assert listing.disk_usage(str(upper)) == 1000 + target
    assert listing.disk_usage(str(tmp_path / "missing")) == 0


def select(filters: dict[str, list[str]] | None = None, *, everything: bool = True, last: int = -1) -> list[str]:
    created = {one.name: one.created for one, _ in FOUND}
    found = listing.select(FOUND, filters or {}, lambda name: created[name], everything=everything, last=last)
    return [one.name for one, _ in found]


def test_only_running_ones_unless_asked() -> None:
    """Paused ones run; -a and -n show stopped ones too, and so does a filter that asks for them."""
    assert select(everything=False) == ["web", "old_web"]
    assert select() == ["web", "db", "old_web"]
    assert select(everything=False, last=2) == ["web", "db"]
    assert select({"status": ["exited"]}, everything=False) == ["db"]
    assert select({"exited": ["3"]}, everything=False) == ["db"]


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"name": ["web"]}, ["web", "old_web"]),
        ({"name": ["^web$"]}, ["web"]),
        ({"name": ["^/web$"]}, ["web"]),
        ({"name": ["db", "old"]}, ["db", "old_web"]),
        ({"id": ["aaa"]}, ["web"]),
        ({"label": ["team"]}, ["web", "db"]),
        ({"label": ["team=a"]}, ["web"]),
        ({"label": ["team=a", "tier=db"]}, []),
        ({"status": ["paused", "exited"]}, ["db", "old_web"]),
        ({"exited": ["3"]}, ["db"]),
        ({"exited": ["0"]}, []),
        ({"ancestor": ["flask-app"]}, ["web", "old_web"]),
        ({"ancestor": ["flask-app:latest"]}, ["web", "old_web"]),
        ({"ancestor": ["pg"]}, []),
        ({"ancestor": ["pg:15"]}, ["db"]),
        ({"ancestor": ["eeee"]}, ["web", "db", "old_web"]),
        ({"publish": ["5000"]}, ["web", "old_web"]),
        ({"publish": ["5000/udp"]}, []),
        ({"expose": ["9000/udp"]}, ["web", "old_web"]),
        ({"expose": ["8000-9500/udp"]}, ["web", "old_web"]),
        ({"network": ["none"]}, ["db"]),
        ({"volume": ["cache-of-everything"]}, ["web", "db"]),
        ({"volume": ["/x"]}, ["web", "db"]),
        ({"health": ["none"]}, ["web", "db", "old_web"]),
        ({"before": ["web"]}, ["db", "old_web"]),
        ({"since": ["db"]}, ["web"]),
        ({"name": ["web"], "status": ["running"]}, ["web"]),
    ],
)
def test_filters(filters: dict[str, list[str]], names: list[str]) -> None:
    """docker's filters: values of one name are alternatives, labels and different names must all fit."""
    assert select(filters) == names


def test_bad_regular_expression() -> None:
    """A name filter that is no regular expression is a usage error."""
    with pytest.raises(UsageError, match="--filter name=\\(: not a regular expression"):
        select({"name": ["("]})


def test_unknown_status() -> None:
    """A status that there is not is a usage error, not an empty list."""
    with pytest.raises(UsageError, match="--filter status=rinnung: no such status"):
        select({"status": ["rinnung"]})


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(Paths(str(tmp_path), str(tmp_path)))


def rows() -> list[dict[str, object]]:
    return [{"ID": "abc", "Name": "web"}, {"ID": "def", "Name": "db"}]


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        ("", ["ID        NAME", "abc       web", "def       db"]),
        ("table", ["ID        NAME", "abc       web", "def       db"]),
        (r"table {{.Name}}\t{{.ID}}", ["NAME      ID", "web       abc", "db        def"]),
        ("table {{.Name}}: {{upper .ID}}", ["NAME: ID", "web: ABC", "db: DEF"]),
        ("{{.Name}}", ["web", "db"]),
        (r"{{.Name}}\t{{.ID}}", ["web\tabc", "db\tdef"]),
        ("json", ['{"ID":"abc","Name":"web"}', '{"ID":"def","Name":"db"}']),
    ],
)
def test_formats(form: str, lines: list[str], ctx: Context, capsys: pytest.CaptureFixture[str]) -> None:
    """--format of every listing: table, table TEMPLATE with headings, json lines, TEMPLATE."""
    ctx.stdout = __import__("sys").stdout
    output.print_rows(ctx, rows(), form, {"ID": "ID", "Name": "NAME"}, ("ID", "Name"))
    assert capsys.readouterr().out.splitlines() == lines
