"""The part of Go's templates that --format understands."""

from __future__ import annotations

import pytest

from dockerd_py.cli.errors import TemplateError
from dockerd_py.cli.template import Template, to_json

CONTAINER = {
    "Id": "abc",
    "State": {"Running": True, "ExitCode": 0, "Status": "running", "Error": ""},
    "Config": {"Cmd": ["sh", "-c", "true"], "Env": None, "Labels": {"b": "2", "a.b": "1"}},
    "Mounts": [{"Source": "/a", "RW": True}, {"Source": "/b", "RW": False}],
    "Nothing": [],
}


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{.Id}}", "abc"),
        ("{{ .Id }}", "abc"),
        ("<{{.Id}}|{{.State.Status}}>", "<abc|running>"),
        ("{{.State.Running}} {{.State.ExitCode}}", "true 0"),
        ("{{.Config.Cmd}}", "[sh -c true]"),
        ("{{.Config.Env}}", "<no value>"),
        ("{{.Config.Labels}}", "map[a.b:1 b:2]"),
        ("{{json .Config.Cmd}}", '["sh","-c","true"]'),
        ("{{json .State.Error}}", '""'),
        ("{{.Config.Cmd | json}}", '["sh","-c","true"]'),
        ('{{index .Config.Labels "a.b"}}', "1"),
        ('{{index .Config.Labels "none"}}', "<no value>"),
        ("{{index .Config.Cmd 1}}", "-c"),
        ("{{(index .Mounts 1).Source}}", "/b"),
        ('{{join .Config.Cmd " "}}', "sh -c true"),
        ('{{upper (join .Config.Cmd ",")}}', "SH,-C,TRUE"),
        ("{{.Id | upper | lower}}", "abc"),
        ('{{index (split .State.Status "n") 2}}', "i"),
        ("{{len .Mounts}}{{len .Config.Env}}", "20"),
        ("{{range .Mounts}}{{.Source}} {{end}}", "/a /b "),
        ("{{range .Mounts}}{{$.Id}}{{.Source}};{{end}}", "abc/a;abc/b;"),
        ("{{range .Config.Labels}}{{.}},{{end}}", "1,2,"),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{range .Config.Env}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .State.Error}}bad{{end}}", ""),
        ("{{if .State.Error}}a{{else if .State.ExitCode}}b{{else}}c{{end}}", "c"),
        ('{{if eq .State.Status "exited" "running"}}known{{end}}', "known"),
        ('{{if and .State.Running (ne .State.ExitCode 1)}}y{{end}}{{if not .State.Running}}n{{end}}', "y"),
        ("{{or .State.Error .Id}}", "abc"),
        ("{{with .State}}{{.Status}}{{end}}{{with .Nothing}}x{{else}}-{{end}}", "running-"),
        ("{{range .Mounts}}{{if .RW}}[{{.Source}}]{{end}}{{end}}", "[/a]"),
        ("a {{- .Id -}} b", "aabcb"),
        ("a{{/* not shown }} */}}b", "ab"),
        ('{{"}}"}}{{`\\n`}}', "}}\\n"),
        ('{{print "a" 1 true}}{{println .Id}}', "a1trueabc\n"),
        ("{{nil}}", "<no value>"),
        ("{.Id} {{.Id}}}", "{.Id} abc}"),
    ],
)
def test_a_template_shows_what_it_says(template: str, shown: str) -> None:
    assert Template(template).render(CONTAINER) == shown


def test_the_whole_object_is_a_point() -> None:
    assert Template("{{json .}}").render({"a": [1, None]}) == '{"a":[1,null]}'
    assert Template("{{.}}").render("text") == "text"


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{{.Id", "an action is not closed: {{.Id"),
        ("{{.Id}} {{", "an action is not closed: {{"),
        ("{{}}", "something is missing in {{}}"),
        ("{{json}}", "json cannot be applied to nothing"),
        ("{{.Id | }}", "something is missing in {{.Id |}}"),
        ("{{.Id | .State}}", "'.State' behind | is no function"),
        ("{{(.Id}}", "a parenthesis is not closed"),
        ("{{.Id)}}", "unexpected ')'"),
        ("{{.Id .State}}", "unexpected '.State'"),
        ('{{printf "%s" .Id}}', '"printf" is not understood (functions: and, eq, index, join, json'),
        ("{{$x := .Id}}", "variables are not understood: $x"),
        ('{{define "x"}}{{end}}', '"define" is not understood'),
        ("{{if .Id}}", "{{if}} needs an {{end}}, found nothing"),
        ("{{end}}", "{{end}} without an opening if, range or with"),
        ("{{range .Mounts}}{{else if .Id}}{{end}}", "{{range}} needs an {{end}}, found {{else if .Id}}"),
        ("{{.Id?}}", "not understood: ?"),
        ('{{"unclosed}}', "an action is not closed"),
    ],
)
def test_what_is_not_understood_is_named(template: str, named: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(template).render(CONTAINER)
    assert named in str(caught.value)
    assert caught.value.exit_code == 64


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{{.Nmae}}", "there is no .Nmae (fields there: Config, Id, Mounts, Nothing, State)"),
        ("{{.State.Foo.Bar}}", "there is no .State.Foo"),
        ("{{.Id.Foo}}", "there is no .Id.Foo: what it is looked up in has no fields"),
        ("{{index .Config.Cmd 7}}", 'index cannot be applied to ["sh", "-c", "true"] 7'),
        ("{{upper .Mounts}}", "upper cannot be applied"),
        ("{{range .Id}}{{end}}", "range cannot go over abc"),
    ],
)
def test_a_field_that_is_not_there_is_an_error(template: str, named: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(template).render(CONTAINER)
    assert named in str(caught.value)


def test_json_is_harmless_on_a_terminal_and_still_json() -> None:
    import json

    value = {"name": "\x1b[2J\x7f\u202e", "plain": "é"}
    assert to_json({"plain": "é"}) == '{"plain":"é"}'
    assert to_json(value).isprintable()
    assert json.loads(to_json(value)) == value
    assert json.loads(to_json(value, indent=4)) == value
