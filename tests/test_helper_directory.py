import fcntl
import functools
import itertools
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from d7agent.core.jobs import Failed, Nothing, Recall, decode_reply, encode
from d7agent.core.model import Secret
from d7agent.helper import manifest
from d7agent.helper.directory import DirectoryStore, expanded, is_mount
from d7agent.helper.faults import StoreUnreachable
from d7agent.helper.private_files import replace, secret_text
from d7agent.helper.stores import Application, Credential, ReadyMade
from tests.support.helper import NOW, USUAL, environment, folder, target

APPLICATION = Application("id-1", Secret("secret-1"))
OTHER = Application("id-2", Secret('2"\\ü'))
READY = ReadyMade(Secret("a.b.c"))


def directory(path: Path, client_id: str | None = None) -> DirectoryStore:
    """The store of this folder."""
    return DirectoryStore(str(path), target("directory", client_id=client_id), {})


@pytest.mark.parametrize("umask", [0o000, 0o277])
def test_files_we_write_are_private(tmp_path: Path, umask: int) -> None:
    """0600, whatever the umask; nothing else is left beside them."""
    path = folder(tmp_path / "c")
    before = os.umask(umask)
    try:
        directory(path).write(APPLICATION)
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()}
    assert modes == {"client_id": 0o600, "client_secret": 0o600, ".d7agent": 0o600}


def test_a_folder_we_make_is_private(tmp_path: Path) -> None:
    """0700, whatever the umask; its parents too, or others could rename it."""
    before = os.umask(0)
    try:
        directory(tmp_path / "a/b").write(APPLICATION)
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")} == {0o700}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o602])
def test_files_that_others_can_read_are_refused(tmp_path: Path, mode: int) -> None:
    """Outside a credential mount a secret is private, and the remedy is named."""
    path = folder(tmp_path / "c", client_id="i", client_secret="s")
    (path / "client_secret").chmod(mode)
    with pytest.raises(StoreUnreachable) as fault:
        directory(path).read()
    assert "chmod 600" in fault.value.failed.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: another owner's files; run as root")
def test_files_of_another_user_are_refused(tmp_path: Path) -> None:
    """A file that someone else owns can be changed by them at any time."""
    path = folder(tmp_path / "c", client_id="i", client_secret="s")
    os.chown(path / "client_id", 65534, 65534)
    with pytest.raises(StoreUnreachable) as fault:
        directory(path).read()
    assert "65534" in fault.value.failed.message


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: another owner's folders; run as root")
@pytest.mark.parametrize("which", ["c", "."])
def test_a_folder_of_another_user_is_refused(tmp_path: Path, which: str) -> None:
    """Its owner could put another credential in place of ours; the folder is named, be it the last or one above."""
    above = tmp_path / "above"
    path = folder(above / "c", client_id="id-1", client_secret="secret-1")
    os.chown(above / which, 65534, 65534)
    (tmp_path / "link").symlink_to(path)
    for way in (path, tmp_path / "link"):
        with pytest.raises(StoreUnreachable) as fault:
            directory(way).read()
        assert f"the folder {above / which} belongs to uid 65534" in fault.value.failed.message
        assert "chown it to root" in fault.value.failed.hint
    os.chown(above / which, 0, 0)
    assert directory(path).read() == directory(tmp_path / "link").read() == APPLICATION


def test_a_folder_below_one_that_others_write_is_refused(tmp_path: Path) -> None:
    """Nothing is read there, nothing written, and no folder made; a sticky one like /tmp does no harm."""
    above = tmp_path / "above"
    path = folder(above / "c", client_id="id-1", client_secret="secret-1")
    above.chmod(0o777)
    for act in (directory(path).read, lambda: directory(path).write(OTHER)):
        with pytest.raises(StoreUnreachable) as fault:
            act()
        assert f"others can write to the folder {above} (mode 0777)" in fault.value.failed.message
        assert f"chmod go-w {above} (or +t)" in fault.value.failed.hint
    with pytest.raises(StoreUnreachable):
        replace({above / "new/token": "text"})
    assert not (above / "new").exists()
    above.chmod(0o1777)
    assert directory(path).read() == APPLICATION


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: another owner's links; run as root")
def test_a_link_of_another_user_leads_nowhere(tmp_path: Path) -> None:
    """Neither to a folder nor to a mount: he would choose whose credential is used."""
    path = folder(tmp_path / "c", client_id="id-1", client_secret="secret-1")
    link = tmp_path / "link"
    link.symlink_to(path)
    os.chown(link, 65534, 65534, follow_symlinks=False)
    for env in ({}, {"CREDENTIALS_DIRECTORY": str(path)}):
        with pytest.raises(StoreUnreachable) as fault:
            DirectoryStore(str(link), target("directory"), env).read()
        assert f"the link {link} belongs to uid 65534" in fault.value.failed.message


def test_what_is_no_file_does_not_hang(tmp_path: Path) -> None:
    """A FIFO, a folder, a device or an endless file in the place of a secret is refused at once."""
    path = folder(tmp_path / "c", client_secret="s")
    os.mkfifo(path / "client_id", 0o600)
    with pytest.raises(StoreUnreachable):
        directory(path).read()
    (path / "client_id").unlink()
    (path / "client_id").symlink_to("/dev/zero")
    with pytest.raises(StoreUnreachable):
        directory(path).read()


def test_a_profiles_client_id_completes_the_folder(tmp_path: Path) -> None:
    """The id is no secret and may stand in the profile."""
    path = folder(tmp_path / "c", client_secret="secret-1\n")
    assert directory(path, client_id="id-1").read() == APPLICATION


def test_files_a_person_wrote_are_kept(tmp_path: Path) -> None:
    """Deleting leaves them and says so; a file we wrote that a person changed since is theirs."""
    path = folder(tmp_path / "c", client_id="i", client_secret="s")
    assert directory(path).delete() == (str(path / "client_id"), str(path / "client_secret"))
    directory(path).write(APPLICATION)
    (path / "client_id").write_text("mine now")
    assert directory(path).delete() == (str(path / "client_id"),)
    assert not (path / "client_secret").exists()


def test_a_persons_files_of_the_other_kind_stand_in_the_way(tmp_path: Path) -> None:
    """A token is not written beside an id and secret that someone else put there: those would win."""
    path = folder(tmp_path / "c", client_id="i", client_secret="s")
    with pytest.raises(StoreUnreachable):
        directory(path).write(READY)
    assert not (path / "access_token").exists()


def test_a_write_that_was_killed_counts_as_done(tmp_path: Path) -> None:
    """After the commit, and before all files follow, the new pair is read, never a mix; then the files follow."""
    store = directory(tmp_path / "c")
    store.write(APPLICATION)
    (tmp_path / "c/client_id").unlink()
    replace({tmp_path / "c/.d7agent.next": '{"client_id":"id-2","client_secret":"2\\"\\\\ü"}'})
    assert store.read() == OTHER
    assert (tmp_path / "c/client_id").read_text() == "id-2\n"
    assert not (tmp_path / "c/.d7agent.next").exists()
    assert store.delete() == ()
    assert list((tmp_path / "c").iterdir()) == []


def test_a_write_after_one_that_was_killed(tmp_path: Path) -> None:
    """The files of the killed write are known as ours, and make way for a credential of the other kind."""
    store = directory(tmp_path / "c")
    store.write(APPLICATION)
    replace({tmp_path / "c/client_id": "id-2\n"})
    replace({tmp_path / "c/.d7agent.next": '{"client_id":"id-2","client_secret":"s-2"}'})
    store.write(READY)
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"access_token", ".d7agent"}


def killed_at(step: int, act: Callable[[], object]) -> bool:
    """Act in a child process that ends at the step-th change of a file, cleaning up nothing; False: it did not."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
    steps = itertools.count(1)

    def hook(event: str, _: object) -> None:
        if event in ("open", "os.rename", "os.remove") and next(steps) == step:
            os._exit(9)

    sys.addaudithook(hook)
    act()
    os._exit(0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # pytest-xdist's own thread
@pytest.mark.parametrize("new", [OTHER, READY])
def test_killed_at_any_step(tmp_path: Path, new: Credential) -> None:
    """The credential is the former or the new one, never a mix, and nothing stays behind in the end."""
    found = []
    for step in itertools.count(1):
        store = directory(tmp_path / str(step))
        store.write(APPLICATION)
        killed = killed_at(step, functools.partial(store.write, new))
        found.append(store.read())
        store.write(APPLICATION)
        assert store.delete() == ()
        assert list((tmp_path / str(step)).iterdir()) == []
        if not killed:
            break
    assert len(found) > 10
    assert found == sorted(
        found, key=lambda credential: credential == new
    )  # first the old one, from some step on the new
    assert all(credential in (APPLICATION, new) for credential in found)
    assert (found[0], found[-1]) == (APPLICATION, new)


def test_what_a_killed_write_had_begun_is_tidied_up(tmp_path: Path) -> None:
    """A secret that never came to count does not lie about: the next look takes it away, if nobody is at work there."""
    store = directory(tmp_path / "c")
    store.write(APPLICATION)
    begun = tmp_path / "c/.d7agent.next.tmp"
    begun.write_text('{"client_id":"id-2","client_secret":"s')
    fd = os.open(tmp_path / "c", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert store.read() == APPLICATION
    assert begun.exists()
    os.close(fd)
    assert store.read() == APPLICATION
    assert not begun.exists()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # pytest-xdist's own thread
def test_a_deletion_killed_at_any_step(tmp_path: Path) -> None:
    """The credential is there whole or not at all, never one half of it, and nothing stays behind in the end."""
    found = []
    for step in itertools.count(1):
        store = directory(tmp_path / str(step))
        store.write(APPLICATION)
        killed = killed_at(step, store.delete)
        found.append(store.read())
        assert store.delete() == ()
        assert list((tmp_path / str(step)).iterdir()) == []
        if not killed:
            break
    assert len(found) > 5
    assert found == sorted(found, key=lambda credential: credential is None)
    assert set(found) == {APPLICATION, None}


def test_a_credential_of_a_person_after_a_deletion_that_was_killed(tmp_path: Path) -> None:
    """What someone has put there meanwhile is read, and stays."""
    store = directory(tmp_path / "c")
    store.write(APPLICATION)
    replace({tmp_path / "c/.d7agent.next": "{}"})
    folder(tmp_path / "c", access_token="a.b.c")
    assert store.read() == READY
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"access_token"}


def test_a_deletion_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk a credential is deleted all the same."""
    store = directory(tmp_path / "c")
    store.write(APPLICATION)

    def full(_: object) -> None:
        raise StoreUnreachable("no space left on device", "make room on the disk")

    monkeypatch.setattr(manifest, "replace", full)
    assert store.delete() == ()
    assert list((tmp_path / "c").iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", '{"client_id": 1}', '{"other": "x"}'])
def test_a_rubbish_commit_is_passed_over(tmp_path: Path, text: str) -> None:
    """What is no credential of ours changes nothing."""
    store = directory(tmp_path / "c")
    store.write(APPLICATION)
    replace({tmp_path / "c/.d7agent.next": text})
    assert store.read() == APPLICATION


def test_a_write_that_fails_leaves_the_former_credential(tmp_path: Path) -> None:
    """Where one of the new files cannot be written, none changes."""
    store = directory(tmp_path / "c")
    store.write(APPLICATION)
    (tmp_path / "c/.client_secret.tmp").mkdir()  # the place where the new secret would wait
    with pytest.raises(StoreUnreachable):
        store.write(OTHER)
    assert store.read() == APPLICATION


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o775])
def test_a_folder_that_others_write_is_not_ours(tmp_path: Path, mode: int) -> None:
    """Nothing is written where others could replace it."""
    path = folder(tmp_path / "c")
    path.chmod(mode)
    assert not directory(path).writable
    with pytest.raises(StoreUnreachable) as fault:
        directory(path).write(APPLICATION)
    assert "0700" in fault.value.failed.hint


def test_credential_mounts(tmp_path: Path) -> None:
    """systemd's folder is one, with everything below; a folder of that name beside it is not, nor one with ..data."""
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    assert is_mount(folder(tmp_path / "credentials/x"), env)
    assert not is_mount(folder(tmp_path / "credentials2"), env)
    assert is_mount(Path("/run/secrets/d7"), {})
    assert is_mount(Path("/run/credentials/d7agent.service"), {})
    assert not is_mount(Path("/run/secretsx"), {})
    fake = folder(tmp_path / "k8s/..1")
    (fake.parent / "..data").symlink_to("..1")
    assert not is_mount(fake.parent, {})  # the layout alone, without the read-only mount, is anybody's


KUBERNETES = """
set -e; mount -t tmpfs -o mode=1777 tmpfs "$1"; mkdir "$1/..1"; ln -s ..1 "$1/..data"
for part in client_id client_secret; do echo "$part-1" > "$1/..1/$part"; ln -s "..data/$part" "$1/$part"; done
chmod -R a+rX "$1/..1"; [ "$2" = rw ] || mount -o remount,ro "$1"; shift 2; exec "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: a Kubernetes volume; run as root")
@pytest.mark.parametrize(("mode", "answer"), [("ro", Nothing(credential=True)), ("rw", None)])
def test_a_kubernetes_volume(tmp_path: Path, mode: str, answer: Nothing | None) -> None:
    """World-readable files behind the kubelet's links are read from a read-only mount, and only there."""
    in_its_mounts = ["unshare", "--mount", "sh", "-c", KUBERNETES, "sh", str(tmp_path), mode]
    done = subprocess.run(
        [*in_its_mounts, *USUAL],
        input=encode(Recall(target(f"directory:{tmp_path}"), NOW)) + b"\0",
        env=environment(None),
        capture_output=True,
        check=True,
        timeout=20,
    )
    reply = decode_reply(done.stdout)
    assert reply == answer or (answer is None and isinstance(reply, Failed) and "mode 0644" in reply.message)


@pytest.mark.parametrize("argument", ["%d", "$CREDENTIALS_DIRECTORY", "${CREDENTIALS_DIRECTORY}/"])
def test_systemd_credentials(tmp_path: Path, argument: str) -> None:
    """Files as systemd shares them by ACL (the mode shows the mask) are read; nothing is written beside them."""
    path = folder(tmp_path / "cred", client_id="id-1\n", client_secret="secret-1\n")
    (path / "client_secret").chmod(0o440)
    store = DirectoryStore(argument, target("directory"), {"CREDENTIALS_DIRECTORY": str(path)})
    assert store.read() == APPLICATION
    assert not store.writable
    assert store.shelf is None
    assert store.delete() == (str(path / "client_id"), str(path / "client_secret"))


def test_systemd_credentials_that_were_not_given() -> None:
    """Without the variable the hint names the line that the unit lacks."""
    with pytest.raises(StoreUnreachable) as fault:
        expanded("%d", {})
    assert "LoadCredential" in fault.value.failed.hint


def test_a_home_folder_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` is the user's home."""
    monkeypatch.setenv("HOME", "/home/x")
    assert expanded("~/d7", {}) == Path("/home/x/d7")


def test_the_token_of_a_read_only_folder_goes_to_the_state_folder(tmp_path: Path) -> None:
    """NAME.token in the agent's state folder, private."""
    credential, state = folder(tmp_path / "cred"), tmp_path / "state"
    env = {"CREDENTIALS_DIRECTORY": str(credential)}
    shelf = DirectoryStore("%d", target("directory", state_dir=str(state)), env).shelf
    assert shelf is not None
    shelf.write("text")
    assert stat.S_IMODE((state / "work.token").stat().st_mode) == 0o600
    assert secret_text(state / "work.token") == "text"
