"""The grammar of the command lines, as a table: what is typed, and what is understood."""

from __future__ import annotations

import pytest

from dockerd_py.flags import Flag, FlagError, HelpRequested, Parsed, describe, parse, parse_size

FLAGS = [
    Flag(("-d", "--detach"), "bool", help="Go to the background"),
    Flag(("-i", "--interactive"), "bool", help="Keep standard input open"),
    Flag(("-t", "--tty"), "bool", help="Make a terminal"),
    Flag("--rm", "bool", help="Remove it when it ends"),
    Flag("--sig-proxy", "bool", True, help="Pass signals on"),
    Flag(("-e", "--env"), "list", help="Set a variable"),
    Flag("--dns", "list", ["10.0.0.1"]),
    Flag(("--net", "--network"), "string", "default", help="Network"),
    Flag("--name", "string", help="Name"),
    Flag(("-m", "--memory"), "size", help="Memory limit"),
    Flag(("-c", "--cpu-shares"), "int", help="Shares"),
    Flag("--cpus", "float", help="Processors"),
    Flag("-n", "int", -1, help="Show the last n"),
    Flag("--driver", "string", choices=("journald", "json-file")),
]


NOT_A_SIZE = "it must be a number of bytes with an optional unit b, k, m or g"


def understood(*argv: str, interspersed: bool = False) -> Parsed:
    return parse(FLAGS, argv, interspersed=interspersed)


def message(*argv: str) -> str:
    with pytest.raises(FlagError) as caught:
        understood(*argv)
    return str(caught.value)


@pytest.mark.parametrize(
    ("argv", "key", "value"),
    [
        (["-d"], "detach", True),
        (["--detach"], "detach", True),
        (["-detach"], "detach", True),
        (["-d=false"], "detach", False),
        (["-d", "-d=false"], "detach", False),
        (["--rm=false"], "rm", False),
        (["-rm"], "rm", True),
        (["-rm=1"], "rm", True),
        (["--sig-proxy=false"], "sig-proxy", False),
        ([], "sig-proxy", True),
        (["--name", "web"], "name", "web"),
        (["--name=web"], "name", "web"),
        (["-name=web"], "name", "web"),
        (["-name", "web"], "name", "web"),
        (["--name="], "name", ""),
        (["--name", "-web"], "name", "-web"),
        (["--name", "a=b"], "name", "a=b"),
        (["--name", "a", "--name", "b"], "name", "b"),
        (["-e", "A=1", "--env=B=2", "-e=C", "-eD=3"], "env", ["A=1", "B=2", "C", "D=3"]),
        ([], "env", []),
        ([], "dns", ["10.0.0.1"]),
        (["--dns", "1.1.1.1", "--dns=8.8.8.8"], "dns", ["1.1.1.1", "8.8.8.8"]),
        (["--net", "host"], "network", "host"),
        (["--network=none"], "network", "none"),
        (["-net=host"], "network", "host"),
        (["-m", "64m"], "memory", 64 << 20),
        (["-m512k"], "memory", 512 << 10),
        (["-c", "512"], "cpu-shares", 512),
        (["-c=+2"], "cpu-shares", 2),
        (["--cpus", "1.5"], "cpus", 1.5),
        (["--cpus=.5"], "cpus", 0.5),
        (["-n", "-5"], "n", -5),
        (["-n=3"], "n", 3),
        ([], "n", -1),
        (["-it"], "interactive", True),
        (["-it"], "tty", True),
        (["-ti=false"], "interactive", False),
        (["-ite", "A=1"], "env", ["A=1"]),
        (["-iteA=1"], "env", ["A=1"]),
        (["-ite=A=1"], "env", ["A=1"]),
        (["--driver", "journald"], "driver", "journald"),
    ],
)
def test_a_flag_is_understood_in_every_spelling(argv: list[str], key: str, value: object) -> None:
    parsed = understood(*argv)
    read = {
        bool: parsed.boolean, str: parsed.string, int: parsed.integer, float: parsed.number, list: parsed.strings,
    }[type(value)]
    assert read(key) == value
    assert parsed.args == []


@pytest.mark.parametrize(
    ("argv", "args"),
    [
        (["-d", "busybox", "-d", "--unknown"], ["busybox", "-d", "--unknown"]),
        (["-d", "--", "-d", "x"], ["-d", "x"]),
        (["-", "-d"], ["-", "-d"]),
        (["", "-d"], ["", "-d"]),
        (["--rm", "false"], ["false"]),
        ([], []),
    ],
)
def test_the_first_argument_that_is_no_flag_ends_the_flags(argv: list[str], args: list[str]) -> None:
    assert understood(*argv).args == args


@pytest.mark.parametrize(
    ("argv", "args"),
    [
        (["a", "-d", "b"], ["a", "b"]),
        (["a", "--", "-d", "b"], ["a", "-d", "b"]),
        (["a", "-", "--name", "b", "c"], ["a", "-", "c"]),
    ],
)
def test_interspersed_flags_may_follow_arguments(argv: list[str], args: list[str]) -> None:
    assert understood(*argv, interspersed=True).args == args


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-x"], "flag provided but not defined: -x"),
        (["--x=1"], "flag provided but not defined: --x"),
        (["-itx"], "flag provided but not defined: -x (in -itx)"),
        (["--d"], "flag provided but not defined: --d"),
        (["---rm"], "flag provided but not defined: ---rm"),
        (["--=1"], "flag provided but not defined: --"),
        (["--name"], "flag needs an argument: --name"),
        (["-it", "-ie"], "flag needs an argument: -e"),
        (["--rm=maybe"], 'invalid value "maybe" for flag --rm: it must be true or false'),
        (["-c", "many"], 'invalid value "many" for flag -c: it must be a whole number'),
        (["-c", "1_000"], 'invalid value "1_000" for flag -c: it must be a whole number'),
        (["-c", "٣"], 'invalid value "٣" for flag -c: it must be a whole number'),
        (["--cpus", "nan"], 'invalid value "nan" for flag --cpus: it must be a number'),
        (["-m", "x"], f'invalid value "x" for flag -m: {NOT_A_SIZE}'),
        (["--driver", "syslog"], 'invalid value "syslog" for flag --driver: it must be one of journald, json-file'),
    ],
)
def test_what_is_wrong_is_named(argv: list[str], text: str) -> None:
    assert message(*argv) == text


@pytest.mark.parametrize("spelling", ["-h", "-help", "--help"])
def test_help_is_asked_for_in_three_ways(spelling: str) -> None:
    with pytest.raises(HelpRequested):
        understood("-d", spelling)


def test_h_is_a_flag_like_any_other_where_it_is_defined() -> None:
    flags = [Flag(("-h", "--hostname"))]
    assert parse(flags, ["-h", "web"]).string("hostname") == "web"
    with pytest.raises(HelpRequested):
        parse(flags, ["--help"])


def test_a_flag_that_was_given_its_default_counts_as_given() -> None:
    assert understood("--name=").has("name")
    assert not understood().has("name")


def test_a_check_says_what_is_wrong_with_a_value() -> None:
    def absolute(text: str) -> None:
        if not text.startswith("/"):
            raise ValueError("it must be absolute")

    flags = [Flag(("-w", "--workdir"), check=absolute)]
    assert parse(flags, ["-w", "/srv"]).string("workdir") == "/srv"
    with pytest.raises(FlagError, match='invalid value "srv" for flag -w: it must be absolute'):
        parse(flags, ["-w", "srv"])


def test_defaults_of_lists_are_not_shared_between_command_lines() -> None:
    understood().strings("dns").append("x")
    assert understood().strings("dns") == ["10.0.0.1"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("1024", 1024), ("12b", 12), ("4k", 4096), ("4KB", 4096), ("4KiB", 4096), ("6M", 6 << 20),
        ("1g", 1 << 30), ("2t", 2 << 40), ("0.5g", 1 << 29), (" 5 m", 5 << 20),
    ],
)  # fmt: skip
def test_sizes_are_1024_based(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1.2.3m", "1e3", "0x10", "1_000", "b", "ib", ".", "inf", "٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number of bytes"):
        parse_size(text)


def test_the_usage_shows_each_flag_with_its_default() -> None:
    lines = describe(FLAGS).splitlines()
    assert lines[0].split("   ")[0] == "  -d, --detach=false"
    assert '      --net, --network="default"   Network' in lines
    assert not any("--dns" in line for line in lines), "a flag without a help text is hidden"
    assert len({line.index(help_) for line, help_ in zip(lines, [f.help for f in FLAGS if f.help], strict=True)}) == 1
