# SPDX-License-Identifier: Apache-2.0
"""inspect: docker's shape, so that its users' templates and scripts work."""

from __future__ import annotations

import json

import pytest

from pyrun.netns.ports import PortMapping, PortSpec
from pyrun.runtime.engine import containers as c
from pyrun.runtime.engine import inspect
from pyrun.runtime.engine.options import MountOption, RestartPolicy, RunOptions
from pyrun.runtime.engine.template_functions import plain
from pyrun.runtime.engine.templates import parse, render
from pyrun.runtime.paths import Paths

PATHS = Paths("/d", "/r")
CONTAINER = c.Container(
    id="a" * 64,
    name="web",
    created="2026-01-31T13:45:00.000000000Z",
    image_id="sha256:" + "e" * 64,
    image_ref="flask-app",
    path="python",
    args=("app.py",),
    options=RunOptions(
        "flask-app",
        detach=True,
        publish=(PortSpec(5000, "tcp", "", 5000, 5000),),
        restart=RestartPolicy("on-failure", 3),
        memory=64 << 20,
        cpus=1.5,
        mounts=(MountOption("bind", "/srv", "/data", readonly=True, create_source=True),),
        cap_add=("CAP_NET_ADMIN",),
    ),
    mounts=(c.MountPoint("bind", "/srv", "/data", readonly=True, propagation="rprivate"),),
    env=("A=1",),
    cmd=("python", "app.py"),
    workdir="/app",
    labels=(("team", "a"),),
    exposed_ports=("5000/tcp", "9000/udp"),
)
STATE = c.State(
    c.RUNNING,
    pid=77,
    endpoint={
        "ip": "10.0.0.2",
        "prefix": 20,
        "gateway": "10.0.0.1",
        "mac": "02:42:0a:00:00:02",
        "host_interface": "pv1",
    },
    ports=(PortMapping("tcp", "0.0.0.0", 5000, 5000),),
)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Id}}", "a" * 64),
        ("{{.Name}}", "/web"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{.State.Status}} {{.State.Running}} {{.State.Pid}} {{.State.ExitCode}}", "running true 77 0"),
        ('{{.Path}} {{join .Args " "}}', "python app.py"),
        ("{{.Config.Image}} {{.Image}}", "flask-app sha256:" + "e" * 64),
        ("{{range .Config.Env}}{{println .}}{{end}}", "A=1\n"),
        ('{{.Config.Labels.team}} {{index .Config.Labels "team"}} {{.Config.Labels.none}}', "a a <no value>"),
        ("{{.NetworkSettings.IPAddress}}", "10.0.0.2"),
        ("{{range .NetworkSettings.Networks}}{{.IPAddress}}/{{.IPPrefixLen}}{{end}}", "10.0.0.2/20"),
        ("{{.NetworkSettings.Networks.bridge.Gateway}}", "10.0.0.1"),
        ('{{(index (index .NetworkSettings.Ports "5000/tcp") 0).HostPort}}', "5000"),
        (
            "{{range $p, $c := .NetworkSettings.Ports}}{{$p}} -> {{if $c}}{{(index $c 0).HostPort}}{{end}};{{end}}",
            "5000/tcp -> 5000;9000/udp -> ;",
        ),
        ("{{json .NetworkSettings.Ports}}", '{"5000/tcp":[{"HostIp":"0.0.0.0","HostPort":"5000"}],"9000/udp":null}'),
        ("{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}", "on-failure:3"),
        ("{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.NetworkMode}}", "67108864 1500000000 bridge"),
        ("{{.HostConfig.Binds}}", "[/srv:/data:ro]"),
        ("{{json .HostConfig.CapAdd}} {{json .HostConfig.CapDrop}}", '["CAP_NET_ADMIN"] null'),
        ("{{range .Mounts}}{{.Type}} {{.Source}} {{.Destination}} {{.RW}}{{end}}", "bind /srv /data false"),
        ("{{.LogPath}}", f"/d/containers/{'a' * 64}/log/container.log"),
        ("{{.RestartCount}} {{.Driver}} {{.Platform}}", "0 overlay linux"),
        ("{{.HostConfig.PortBindings}}", "map[5000/tcp:[{ 5000}]]"),
    ],
)
def test_templates_of_docker_users(template: str, text: str) -> None:
    """The --format lines that people have in their scripts."""
    assert render(parse(template), inspect.container(PATHS, CONTAINER, STATE)) == text


def test_every_value_is_json() -> None:
    """The whole object can be printed, whatever the state."""
    for state in (STATE, c.State(), c.State(c.EXITED, exit_code=None, error="exec: not found")):
        shown = json.loads(json.dumps(plain(inspect.container(PATHS, CONTAINER, state, size=True))))
        assert shown["State"]["Status"] == state.status
        assert shown["SizeRw"] == 0
    assert shown["State"]["ExitCode"] is None
    assert shown["State"]["Error"] == "exec: not found"


def test_a_stopped_container_publishes_nothing() -> None:
    """NetworkSettings of a container that does not run has neither address nor host ports."""
    shown = inspect.container(PATHS, CONTAINER, c.State(c.EXITED, exit_code=0))
    assert shown["NetworkSettings"]["IPAddress"] == ""
    assert shown["NetworkSettings"]["Ports"] == {"5000/tcp": None, "9000/udp": None}
