"""The process of an exec: what it shares with its container, and what it has of its own."""

from __future__ import annotations

from typing import Any

from dockerd_py.runtime import capabilities, spec
from dockerd_py.runtime.process import ProcessInput, build_process
from dockerd_py.runtime.users import User

BUNDLE = spec.build_spec(
    spec.SpecInput(
        id="ab" * 32,
        root="/r",
        args=("sleep", "1"),
        environment=("PATH=/p", "HOSTNAME=h", "A=1", "HOME=/root"),
        cwd="/c",
        uid=5,
        gid=6,
        groups=(6, 7),
        hostname="h",
        capabilities=("CAP_CHOWN",),
        rlimits=(spec.Rlimit("RLIMIT_NOFILE", 1, 2),),
        oom_score_adj=9,
        console_size=(1, 2),
        terminal=True,
    )
)


def built(**changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "args": ("true",),
        "environment": (),
        "container_environment": ("A=1",),
        "cwd": "",
        "terminal": False,
        "user": None,
        "capabilities": None,
    }
    return build_process(BUNDLE, ProcessInput(**{**settings, **changes}))


def test_what_confines_the_container_confines_it() -> None:
    process = built()
    for key in ("capabilities", "rlimits", "oomScoreAdj", "noNewPrivileges", "user"):
        assert process[key] == BUNDLE["process"][key]
    assert (process["args"], process["cwd"], process["terminal"]) == (["true"], "/", False)
    assert "consoleSize" not in process
    assert BUNDLE["process"]["args"] == ["sleep", "1"]


def test_another_user_keeps_the_umask_and_has_a_home_and_groups_of_its_own() -> None:
    process = built(user=User(1, 2, (2, 3), "/home/one"))
    assert process["user"] == {"uid": 1, "gid": 2, "umask": 0o022, "additionalGids": [2, 3]}
    assert "HOME=/home/one" in process["env"]


def test_a_home_that_was_given_stays() -> None:
    process = built(user=User(1, 2, (2,), "/home/one"), container_environment=("HOME=/root",))
    assert "HOME=/root" in process["env"]


def test_variables_are_replaced_added_and_taken_away() -> None:
    assert built(environment=("A=2", "B=3"))["env"] == ["PATH=/p", "HOSTNAME=h", "A=2", "B=3", "HOME=/root"]
    assert built(environment=("A",))["env"] == ["PATH=/p", "HOSTNAME=h", "HOME=/root"]


def test_a_terminal_has_a_type_and_a_size() -> None:
    process = built(terminal=True, console_size=(24, 80))
    assert "TERM=xterm" in process["env"]
    assert process["consoleSize"] == {"height": 24, "width": 80}


def test_all_capabilities_are_given_where_they_are_asked_for() -> None:
    given = built(capabilities=capabilities.ALL)["capabilities"]
    everything = list(capabilities.ALL)
    assert given == {"bounding": everything, "effective": everything, "permitted": everything}
