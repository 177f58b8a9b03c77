"""Who may change what is at the end of a path: the rule, on a disk that is only described."""

import errno
import os
import stat

import pytest

from d7agent.core.trust import MAX_LINKS, Distrusted, Rule

ME, OTHER, GROUP = 1000, 1001, 100
FOLDER, FILE, LINK = stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK

Things = dict[str, tuple[int, int, int] | tuple[str, int]]  # folders and files, links


def found(kind: int, mode: int, uid: int, gid: int) -> os.stat_result:
    """What lstat(2) tells of something."""
    return os.stat_result((kind | mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


class Described:
    """A disk: folders and files as (mode, owner, group), links as (target, owner). `read_only`: mounted so."""

    def __init__(self, things: Things, *, read_only: bool = False) -> None:
        self.things = {"/": (FOLDER | 0o755, 0, 0), **things}
        self.read_only = read_only
        self.seen: list[str] = []

    def lstat(self, path: str, /) -> os.stat_result:
        """As os.lstat."""
        self.seen.append(path)
        if path not in self.things:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        thing = self.things[path]
        if isinstance(thing[0], str):
            return found(LINK, 0o777, thing[1], thing[1])
        return found(thing[0], 0, thing[1], thing[-1])

    def readlink(self, path: str, /) -> str:
        """As os.readlink."""
        return str(self.things[path][0])

    def statvfs(self, path: str, /) -> os.statvfs_result:
        """As os.statvfs."""
        assert path in self.things
        return os.statvfs_result((0,) * 8 + (os.ST_RDONLY if self.read_only else 0, 255))


HOME = {"/home": (FOLDER | 0o755, 0, 0), "/home/me": (FOLDER | 0o755, ME, ME), "/home/me/f": (FILE | 0o644, ME, ME)}
TMP = {"/tmp": (FOLDER | 0o1777, 0, 0)}

GOOD: dict[str, tuple[str, Things]] = {
    "a home": ("/home/me/f", {**HOME}),
    "a private group": ("/home/me/f", {**HOME, "/home/me": (FOLDER | 0o775, ME, ME)}),
    "root's group": ("/home/me/f", {**HOME, "/home": (FOLDER | 0o775, 0, 0)}),
    "root's, given to our group": ("/home/me/f", {**HOME, "/home/me": (FOLDER | 0o770, 0, ME)}),
    "the runtime folder": ("/run/user/1000", {
        "/run": (FOLDER | 0o755, 0, 0), "/run/user": (FOLDER | 0o755, 0, 0), "/run/user/1000": (FOLDER | 0o700, ME, ME)
    }),
    "ours in a sticky folder": ("/tmp/x", {**TMP, "/tmp/x": (FOLDER | 0o700, ME, ME)}),
    "a link of ours": ("/tmp/l/f", {**TMP, **HOME, "/tmp/l": ("/home/./me", ME)}),
    "a link of root's": ("/home/l/f", {**HOME, "/home/l": ("../home/me", 0)}),
    "a file, which is its reader's to judge": ("/home/me/f", {**HOME, "/home/me/f": (FILE | 0o666, OTHER, ME)}),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_ways_that_nobody_else_can_change(case: str) -> None:
    """As they are found on every machine."""
    path, things = GOOD[case]
    Rule(ME).walk(path, Described(things))


BAD: dict[str, tuple[str, Things, str]] = {
    "another's folder": ("/home/me/f", {**HOME, "/home/me": (FOLDER | 0o755, OTHER, ME)}, "the folder /home/me bel"),
    "another's folder higher up": ("/home/me/f", {**HOME, "/home": (FOLDER | 0o755, OTHER, 0)}, "the folder /home bel"),
    "another's folder in a sticky one": (
        "/tmp/x/f", {**TMP, "/tmp/x": (FOLDER | 0o755, OTHER, ME)}, "the folder /tmp/x bel"
    ),
    "another's sticky folder": ("/t/x", {"/t": (FOLDER | 0o1777, OTHER, ME)}, "the folder /t bel"),
    "all can write": ("/home/me/f", {**HOME, "/home/me": (FOLDER | 0o757, ME, ME)}, "the folder /home/me (mode 0757)"),
    "a group can write": ("/home/me/f", {**HOME, "/home": (FOLDER | 0o775, 0, GROUP)}, "the folder /home (mode 0775)"),
    "another's link": ("/home/l/f", {**HOME, "/home/l": ("/home/me", OTHER)}, "the link /home/l bel"),
    "a good link to a bad place": (
        "/home/l/f", {**HOME, "/home/l": ("/t", ME), "/t": (FOLDER | 0o777, ME, ME)}, "the folder /t (mode 0777)"
    ),
    "up from another's": (
        "/t/../home/me/f", {**HOME, "/t": (FOLDER | 0o755, OTHER, OTHER)}, "the folder /t bel"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_ways_that_someone_else_can_change(case: str) -> None:
    """The first weak thing is named with a remedy, and nothing beyond it is looked at."""
    path, things, words = BAD[case]
    disk = Described(things)
    with pytest.raises(Distrusted) as caught:
        Rule(ME).walk(path, disk)
    assert words in caught.value.message
    assert caught.value.hint.startswith(("chown it to uid 1000 (the agent's user) or to root", "chmod go-w /"))
    assert disk.seen[-1] in caught.value.message


def test_links_alone() -> None:
    """Where only they count, folders may be anybody's."""
    theirs: Things = {"/t": (FOLDER | 0o777, OTHER, OTHER)}
    Rule(ME).walk("/t", Described(theirs), links_only=True)
    with pytest.raises(Distrusted):
        Rule(ME).walk("/t/l", Described({**theirs, "/t/l": ("/t", OTHER)}), links_only=True)


def test_a_read_only_mount() -> None:
    """Its write bits are for nobody, as in a Kubernetes ConfigMap of mode 0777; its owner counts all the same."""
    Rule(ME).walk("/etc", Described({"/etc": (FOLDER | 0o777, 0, 0)}, read_only=True))
    with pytest.raises(Distrusted):
        Rule(ME).walk("/etc", Described({"/etc": (FOLDER | 0o755, OTHER, 0)}, read_only=True))


def test_a_namespace_without_root() -> None:
    """Whoever owns `/` is trusted; where that is root, the overflow uid is a stranger as any other."""
    overflow = 65534
    things: Things = {
        **HOME, "/": (FOLDER | 0o755, overflow, overflow), "/home": (FOLDER | 0o755, overflow, overflow)
    }  # fmt: skip
    Rule(ME, overflow).walk("/home/me/f", Described(things))
    with pytest.raises(Distrusted):
        Rule(ME).walk("/home/me/f", Described(things))


def test_files_are_judged_when_they_are_open() -> None:
    """Their owner and mode as of folders, but that a sticky bit helps no file."""
    rule = Rule(ME)
    for good in (found(FILE, 0o644, ME, ME), found(FILE, 0o644, 0, 0), found(FILE, 0o664, ME, ME)):
        rule.check("/f", good)
    for bad in (found(FILE, 0o644, OTHER, ME), found(FILE, 0o1666, ME, ME), found(FILE, 0o664, ME, GROUP)):
        with pytest.raises(Distrusted, match="the file /f"):
            rule.check("/f", bad)


def test_ways_that_end_early() -> None:
    """A missing folder and links in a circle are told as the kernel tells them."""
    with pytest.raises(FileNotFoundError):
        Rule(ME).walk("/home/none/f", Described({**HOME}))
    circle = Described({"/a": ("b", 0), "/b": ("a", 0)})
    with pytest.raises(OSError, match="Too many levels"):
        Rule(ME).walk("/a", circle)
    assert len(circle.seen) <= MAX_LINKS + 3
