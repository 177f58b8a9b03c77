"""The shell library in dash, bash and zsh: the token from the file without a process, or from the command."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.shell_library import LIBRARY, OTHER, SHELLS, TOKEN, Place


@pytest.fixture(params=SHELLS)
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    return Place(tmp_path, request.param)


def test_token_and_header_come_from_the_file(place: Place) -> None:
    """Printed, or put into a variable; no command is found on this PATH, and none is looked for."""
    place.write()
    place.write(OTHER, name="work")
    script = (
        'd7_token; d7_header; d7_token work; d7_header -v HEADER work; d7_token -v T; printf \'%s\\n\' "$HEADER" "$T"'
    )
    header = "Authorization: Bearer "
    wanted = [TOKEN, header + TOKEN, OTHER, header + OTHER, TOKEN]
    assert place.out(script, PATH="/nowhere").splitlines() == wanted
    assert place.out("d7_token", D7AGENT_PROFILE="work") == f"{OTHER}\n"
    file = str(place.folder / "d7agent" / "work.env")
    assert place.out("d7_token; d7_token default", D7AGENT_ENV_FILE=file) == f"{OTHER}\n{TOKEN}\n"
    assert place.asked == []


def test_no_process_is_started(place: Place) -> None:
    """The kernel is asked: thirty tokens, and neither a fork nor an exec but the shell's own."""
    place.write()
    strace = shutil.which("strace")
    assert strace, "NOT TESTED: install strace"
    calls = "clone,clone3,fork,vfork,execve,execveat"
    script = (
        f"set -eu; . {LIBRARY}; i=0; while [ $i -lt 10 ]; do d7_token; d7_token -v T; d7_header -v H; i=$((i+1)); done"
    )
    argv = [strace, "-f", "-qq", "-e", f"trace={calls}", "-o", str(place.folder / "trace"), place.shell, "-c", script]
    done = subprocess.run(argv, env=place.env, capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout == f"{TOKEN}\n" * 10
    (started,) = (place.folder / "trace").read_text().splitlines()
    assert "execve(" in started


@pytest.mark.parametrize(
    "how", ["missing", "other boot", "too late", "nearly", "half", "empty", "no numbers", "folder"]
)
def test_a_file_that_is_no_good_is_not_used(place: Place, how: str) -> None:
    """A dead agent's leftover, or none: the command is asked, and its token is the answer."""
    path = place.write()
    if how == "missing":
        path.unlink()
    elif how == "other boot":
        place.write(boot_id="1c1a4e61-caf0-41ec-8ada-000000000000")
    elif how in ("too late", "nearly"):
        place.write(left=-1 if how == "too late" else 4)
    elif how == "half":
        path.write_text(path.read_text()[:-3].rpartition("\n")[0] + "\n")
    elif how == "empty":
        path.write_text("")
    elif how == "no numbers":
        path.write_text(path.read_text().replace("BEFORE=", "BEFORE=x"))
    else:
        path.unlink()
        path.mkdir()
    assert place.out("d7_token; d7_token default; d7_header") == f"{OTHER}\n{OTHER}\nAuthorization: Bearer {OTHER}\n"
    assert place.asked == ["token", "token -p default", "token"]


def test_without_a_runtime_folder_the_system_agents_file_is_meant(place: Place) -> None:
    """/run/d7agent/PROFILE.env; there is none here, so the command is asked, for the profile of the environment."""
    done = place.run("unset XDG_RUNTIME_DIR; D7AGENT_PROFILE=no-such-profile; d7_token")
    assert done.stdout == f"{OTHER}\n"
    assert place.asked == ["token -p no-such-profile"]


def test_the_commands_failure_is_the_functions(place: Place) -> None:
    """Its exit status, under `set -e` and in a condition; nothing is printed for a token."""
    (place.folder / "asked.status").write_text("6\n")
    done = place.run("d7_token; echo not reached")
    assert (done.returncode, done.stdout) == (6, "")
    done = place.run('if d7_token; then echo yes; else echo "no $?"; fi; d7_header -v H || echo "and $? ${H-unset}"')
    assert (done.returncode, done.stdout) == (0, "no 6\nand 6 unset\n")


@pytest.mark.parametrize("call", ["d7_token ../x", "d7_token UPPER", "d7_token -v 1x", "d7_token -v", "d7_header a b",
                                  "d7_token -v 'x;y'", "d7_token -v _d7_token"])  # fmt: skip
def test_wrong_usage_is_told(place: Place, call: str) -> None:
    """Status 2 and two lines, as from the command; it is not asked."""
    place.write()
    done = place.run(f"{call} || exit $?")
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.partition(" ")[2][:6] for line in done.stderr.splitlines()] == ["error:", "hint: "]
    assert place.asked == []


def test_the_callers_variables_options_and_arguments_are_left_alone(place: Place) -> None:
    """Whatever they are called; new is nothing but three names that hold no secret."""
    place.write()
    names = ("token", "profile", "file", "line", "name", "status", "flags", "x", "IFS_", "T")
    before = "; ".join(f"{name if name != 'status' else 'stat'}=mine" for name in names)
    script = f"""
        {before}; IFS=:; set -- one 'two three'; set -C
        before=$-
        d7_token >/dev/null; d7_header work >/dev/null; d7_token no:such 2>/dev/null || :
        [ "$before" = "$-" ] && [ "$IFS" = : ] && [ "$#" = 2 ] && [ "$2" = 'two three' ]
        [ "$token$profile$file$line$name$stat$flags$x$T" = mineminemineminemineminemineminemine ]
        set | while IFS= read -r line; do case $line in *{TOKEN}* | *{OTHER}*) echo "left: $line" ;; esac; done
        unset _d7_boot_id _d7_flags _d7_status
        set | while IFS= read -r line; do case $line in _d7_*=*) echo "left: $line" ;; esac; done
    """
    assert place.out(script) == ""


def test_neither_allexport_nor_xtrace_gives_the_token_away(place: Place) -> None:
    """`set -a` puts nothing secret into a child's environment, `set -x` nothing into the log; both stay on."""
    place.write()
    done = place.run(
        "set -ax; d7_token >/dev/null; d7_header >/dev/null; d7_token work >/dev/null; A=1; env; true marker"
    )
    assert TOKEN not in done.stdout + done.stderr
    assert OTHER not in done.stdout + done.stderr
    assert "true marker" in done.stderr
    assert "\nA=1\n" in f"\n{done.stdout}"


def test_it_can_be_sourced_twice_and_says_nothing(place: Place) -> None:
    """Also by a shell that has nothing set."""
    place.write()
    assert place.out(f". '{LIBRARY}'; d7_token") == f"{TOKEN}\n"
    assert place.run("", before=f". '{LIBRARY}'").stderr == ""


def test_shellcheck_is_content() -> None:
    """As POSIX sh, remarks on style included."""
    program = shutil.which("shellcheck")
    assert program, "NOT TESTED: install shellcheck"
    done = subprocess.run([program, "-x", LIBRARY], capture_output=True, text=True, check=False)
    assert done.stdout == ""
