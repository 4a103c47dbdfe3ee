# SPDX-License-Identifier: Apache-2.0
"""--format: Go's templates as docker's users write them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrun.runtime.engine.template_functions import Thing
from pyrun.runtime.engine.templates import Lazy, Map, TemplateError, parse, render, table
from pyrun.runtime.errors import UsageError

DATA = {
    "Name": "web",
    "State": {"Status": "running", "Pid": 5, "Running": True, "Paused": False, "ExitCode": 0},
    "Mounts": [{"Source": "/a", "RW": True}, {"Source": "/b", "RW": False}],
    "Labels": Map(team="a", tier="b"),
    "Ports": Map({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}),
    "Args": ["-c", "sleep 1"],
    "Empty": [],
    "Nothing": None,
    "Share": 12.5,
    "Slow": Lazy(lambda: "computed"),
    "Label": lambda name: {"team": "a"}.get(name, ""),
}


def text(template: str) -> str:
    return render(parse(template), DATA)


@pytest.mark.parametrize(
    ("template", "result"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{{.Name}}", "web"),
        ("{{ .Name }}-{{.State.Status}}", "web-running"),
        ("{{.State.Pid}} {{.State.Running}} {{.Share}} {{.Nothing}}", "5 true 12.5 <nil>"),
        ("{{.Args}} {{.Labels}}", "[-c sleep 1] map[team:a tier:b]"),
        ("{{.State}}", "{running 5 true false 0}"),
        ("{{json .Args}}", '["-c","sleep 1"]'),
        ("{{json .State}}", '{"Status":"running","Pid":5,"Running":true,"Paused":false,"ExitCode":0}'),
        ("{{.State | json}}", '{"Status":"running","Pid":5,"Running":true,"Paused":false,"ExitCode":0}'),
        ("{{.Labels.team}} {{.Labels.other}}", "a <no value>"),
        ('{{index .Labels "team"}}', "a"),
        ('{{index .Labels "none"}}{{index .Nothing "x"}}', ""),
        ('{{(index (index .Ports "80/tcp") 0).HostPort}}', "8080"),
        ('{{index .Ports "80/tcp" 0}}', "{0.0.0.0 8080}"),
        ("{{index .Args 1}}", "sleep 1"),
        ('{{.Label "team"}}', "a"),
        ("{{.Slow}} {{json .Slow}}", 'computed "computed"'),
        ("{{len .Mounts}}{{len .Name}}{{len .Labels}}", "232"),
        ("{{range .Mounts}}{{.Source}};{{end}}", "/a;/b;"),
        ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Source}} {{end}}", "0=/a 1=/b "),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "team=a tier=b "),
        ("{{range $p, $c := .Ports}}{{$p}}->{{(index $c 0).HostPort}}{{end}}", "80/tcp->8080"),
        ("{{range .Mounts}}{{$.Name}}{{end}}", "webweb"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{range .Args}}{{println .}}{{end}}", "-c\nsleep 1\n"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .State.Paused}}a{{else if .State.Running}}b{{else}}c{{end}}", "b"),
        ("{{if and .State.Running (not .State.Paused)}}y{{end}}", "y"),
        ("{{if or .Empty .State.Paused}}y{{else}}n{{end}}", "n"),
        ('{{if eq .State.Status "exited" "running"}}y{{end}}', "y"),
        ('{{if ne .Name "db"}}y{{end}}', "y"),
        ("{{if gt .State.Pid 4}}y{{end}}{{if le .State.Pid 4}}n{{end}}", "y"),
        ("{{with .State}}{{.Status}}{{end}}", "running"),
        ("{{with .Nothing}}x{{else}}no {{.Name}}{{end}}", "no web"),
        ("{{with $x := .Name}}{{$x}}{{.}}{{end}}", "webweb"),
        ("{{$n := .Name}}{{$n}}{{$n}}", "webweb"),
        ("{{$n := 1}}{{if true}}{{$n := 2}}{{end}}{{$n}}", "1"),
        (
            '{{printf "%s has %d (%q) %5.1f%% %-4s| %v %t" .Name .State.Pid .Name .Share "x" .Args true}}',
            'web has 5 ("web")  12.5% x   | [-c sleep 1] true',
        ),
        ('{{.Name | printf "%6s"}}', "   web"),
        ('{{join .Args ","}}', "-c,sleep 1"),
        ('{{split "a:b" ":"}}', "[a b]"),
        ('{{upper .Name}} {{lower "ABC"}} {{title .Name}}', "WEB abc Web"),
        ("{{truncate .Name 2}}|{{pad .Name 1 2}}|", "we| web  |"),
        ("{{slice .Name 1 3}}", "eb"),
        ('{{print "a" 1 2 "b"}}', "a1 2b"),
        ("a {{- .Name -}} b", "awebb"),
        ("a {{/* no */}}b", "a b"),
        ('{{"}}"}}', "}}"),
        ("{{`raw\\n`}}", "raw\\n"),
        ('{{"tab\\t"}}', "tab\t"),
        ("{{1.5}} {{-3}} {{true}} {{nil}}", "1.5 -3 true <nil>"),
        ("{{range 3}}{{.}}{{end}}", "012"),
    ],
)
def test_what_templates_print(template: str, result: str) -> None:
    """Every construct that docker's documentation and its users use."""
    assert text(template) == result


@pytest.mark.parametrize(
    ("template", "why", "hint"),
    [
        ("{{.Nmae}}", "there is no field Nmae", "did you mean 'Name'?"),
        ("{{.State.Staus}}", "there is no field Staus in .State", "did you mean 'Status'?"),
        ("{{.Xyzzy}}", "there is no field Xyzzy", "the fields are Name, State, "),
        ("{{.Name.First}}", ".Name.First: 'web' has no fields, so no First", ""),
        ("{{range .Mounts}}{{.Nme}}{{end}}", "there is no field Nme", ""),
        ("{{Name}}", "there is no function 'Name'", "a field begins with a dot: .Name"),
        ("{{jsn .}}", "there is no function 'jsn'", "did you mean 'json'?"),
        ("{{.Name", "{{.Name is not closed with }}", ""),
        ("{{end}}", "{{end}} without a beginning", ""),
        ("{{if .Name}}", "{{if}} has no {{end}}", ""),
        ("{{if .Name}}{{else}}", "{{if}} has no {{end}}", ""),
        ("{{range .Name}}{{end}}", "range cannot go over 'web'", ""),
        ("{{}}", "nothing to show in '{{}}'", ""),
        ("{{.Name |}}", "nothing to show in '{{.Name |}}'", ""),
        ("{{(.Name}}", "'(' is not closed in '{{(.Name}}'", ""),
        ("{{.Name)}}", "unexpected ')'", ""),
        ('{{"\\q"}}', "unknown escape \\q", ""),
        ("{{$x}}", "undefined variable $x", ""),
        ('{{.Name "x"}}', ".Name is not a function", ""),
        ('{{printf "%d" .Name}}', "printf: %d does not fit 'web'", ""),
        ('{{printf "%s"}}', "printf: no value for %s", ""),
        ('{{printf "x" 1}}', "printf: there are more values than verbs", ""),
        ("{{index .Args 2}}", "index 2 is out of range: there are 2", ""),
        ("{{index .Name .Name}}", "cannot index 'web' with 'web'", ""),
        ('{{eq .State.Pid "5"}}', "cannot compare '5' with '5': they are of different types", ""),
        ('{{join .Name ","}}', "join wants a list, not 'web'", ""),
        ("{{upper}}", "upper: wrong arguments", ""),
        ("{{lt .Name 5}}", "cannot order 'web' and '5'", ""),
        ("{{.Label}}", ".Label: wrong arguments", ""),
    ],
)
def test_mistakes_are_one_line(template: str, why: str, hint: str) -> None:
    """A usage error that names the field or word; nothing is printed."""
    with pytest.raises(TemplateError) as caught:
        text(template)
    assert str(caught.value) == f"--format: {why}"
    assert hint in caught.value.hint
    assert isinstance(caught.value, UsageError)


def test_json_of_a_row_leaves_methods_out() -> None:
    """{{json .}} has every field, computed ones too, but not the methods that take an argument."""
    found = json.loads(text("{{json .}}"))
    assert found["Slow"] == "computed"
    assert "Label" not in found
    assert found["Labels"] == {"team": "a", "tier": "b"}


def test_lazy_values_are_computed_once_and_only_when_needed() -> None:
    """A size that takes a walk over a directory costs nothing unless the template asks for it."""
    calls: list[int] = []

    def measure() -> str:
        calls.append(1)
        return "5MB"

    data = {"Size": Lazy(measure), "ID": "x"}
    render(parse("{{.ID}}"), data)
    assert calls == []
    assert render(parse("{{.Size}}{{.Size}}"), data) == "5MB5MB"
    assert calls == [1]


def test_table_aligns_like_docker() -> None:
    """Columns are at least ten wide and three apart; the last one is not padded."""
    assert table(["ID\tNAME", "0123456789ab\tx"]) == ["ID             NAME", "0123456789ab   x"]
    assert table(["A\tB", "x\ty"]) == ["A         B", "x         y"]


@given(st.text(alphabet='{}.()|$"ab -`\\,:=', max_size=30))
def test_whatever_is_typed_is_text_or_a_template_error(template: str) -> None:
    """No other exception ever."""
    try:
        text(template)
    except TemplateError:
        pass


def test_a_missing_field_is_missing_in_something() -> None:
    """The message says in what, and the exit code is docker's."""
    with pytest.raises(TemplateError, match="--format: there is no field Bogus in the image$") as caught:
        render(parse("{{.Bogus}}"), Thing({"Id": "x"}, "image"))
    assert caught.value.code == 1
