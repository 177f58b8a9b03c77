"""Edits of configuration and credential files, as the agent's watch sees them on a real file system.

A change carries no content, so a test makes its edit, takes the change, and then edits a marker in a store folder of
its own: the change that follows names this folder alone unless the watch told of something that was no edit.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from d7agent.agent.files import write_atomic
from d7agent.agent.hints import Hints
from d7agent.agent.watch import Change, look, watch
from tests.support.osfaults import paths_in

QUICK = 0.02  # seconds between glances, in place of 2.5
LIMIT = 10.0  # seconds; a change that is not seen by then is missed
CONFIG = Change(config=True, stores=frozenset())


class Watched(Hints):
    """Real hints in a watch whose changes are kept, and which can be waited for to be armed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.paths = paths_in(folder)
        self.marker = folder / "marker" / "client_id"
        self.marker.parent.mkdir()
        self.stores = [str(self.marker.parent)]
        self.changes: asyncio.Queue[Change] = asyncio.Queue()
        self.stop = asyncio.Event()
        self._covered = asyncio.Event()

    def arm(self, folders: frozenset[str]) -> bool:
        """As it is; without a change everything that is there now is covered."""
        fresh = super().arm(folders)
        if not fresh:
            self._covered.set()
        return fresh

    async def covered(self) -> None:
        """Wait until the hints cover what is there."""
        async with asyncio.timeout(LIMIT):
            await self._covered.wait()

    async def next(self) -> Change:
        """The next change, or TimeoutError."""
        async with asyncio.timeout(LIMIT):
            return await self.changes.get()

    async def nothing_else(self) -> None:
        """Nothing was told of but what was taken."""
        self.marker.write_text(os.urandom(8).hex())
        assert await self.next() == self.marked
        assert self.changes.empty()

    @property
    def marked(self) -> Change:
        """What an edit of the marker leads to."""
        return Change(config=False, stores=frozenset([str(self.marker.parent)]))


class Unhinted(Watched):
    """Where inotify is used up."""

    def arm(self, folders: frozenset[str]) -> bool:
        """Never armed."""
        self._covered.set()
        return False


@asynccontextmanager
async def watching(hints: Watched) -> AsyncIterator[Watched]:
    """A quick watch, its hints armed."""
    task = asyncio.create_task(
        watch(hints.paths, hints.changes.put_nowait, hints.stop, lambda: hints.stores, step=QUICK, hints=hints)
    )
    try:
        await hints.covered()
        yield hints
    finally:
        hints.stop.set()
        async with asyncio.timeout(LIMIT):
            await task
        assert not hints.armed


def run(story: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a test's story on a loop of its own."""
    asyncio.run(story())


def default(folder: Path) -> Path:
    """The default profile's file, its folder made."""
    path = Path(paths_in(folder).written_dir, "default.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def in_place(path: Path) -> None:
    """As `echo >> file` does."""
    with path.open("a") as file:
        file.write("# more")


def by_rename(path: Path) -> None:
    """As vim and our own atomic writes do."""
    write_atomic(str(path), b"# new", 0o600)


def with_backup(path: Path) -> None:
    """As editors do that move the old file away first."""
    path.rename(f"{path}~")
    path.write_text("# new")


def permissions(path: Path) -> None:
    """A file that can no longer be read is a change as well."""
    path.chmod(0o640)


def same_size_and_time(path: Path) -> None:
    """As `cp -p` may do; the inode's change time tells."""
    found = path.stat()
    path.write_text("# two")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


EDITS = [in_place, by_rename, with_backup, permissions, same_size_and_time, os.unlink]


@pytest.mark.parametrize("hinted", [Watched, Unhinted])
@pytest.mark.parametrize("edit", EDITS)
def test_every_way_of_editing_is_one_change(
    tmp_path: Path, edit: Callable[[Path], None], hinted: type[Watched]
) -> None:
    """With inotify and without it."""
    path = default(tmp_path)
    path.write_text("# one")

    async def story() -> None:
        async with watching(hinted(tmp_path)) as watched:
            edit(path)
            assert await watched.next() == CONFIG
            await watched.nothing_else()

    run(story)


def test_files_and_folders_that_come_later_are_seen(tmp_path: Path) -> None:
    """From no folder at all, by steps; and again after everything was removed."""
    config = Path(paths_in(tmp_path).config_file)

    async def story() -> None:
        async with watching(Watched(tmp_path)) as watched:
            for _ in range(2):
                path = default(tmp_path)
                path.write_text("# one")
                assert await watched.next() == CONFIG
                in_place(config)
                assert await watched.next() == CONFIG
                in_place(path)
                assert await watched.next() == CONFIG
                shutil.rmtree(watched.paths.config_dir)
                assert await watched.next() == CONFIG
            await watched.nothing_else()

    run(story)


def test_a_folder_that_is_moved_away_and_back_is_followed(tmp_path: Path) -> None:
    """Its files are gone, and then they are there again."""
    path = default(tmp_path)
    path.write_text("# one")

    async def story() -> None:
        async with watching(Watched(tmp_path)) as watched:
            path.parent.rename(tmp_path / "away")
            assert await watched.next() == CONFIG
            (tmp_path / "away").rename(path.parent)
            assert await watched.next() == CONFIG
            in_place(path)
            assert await watched.next() == CONFIG
            await watched.nothing_else()

    run(story)


def test_what_is_none_of_ours_is_no_change(tmp_path: Path) -> None:
    """State, temporary and backup files, folders, links, reading; even a name that is not UTF-8."""
    path = default(tmp_path)
    path.write_text("# one")
    no_text = Path(os.fsdecode(os.fsencode(path.parent) + b"/\xff"))

    async def story() -> None:
        async with watching(Watched(tmp_path)) as watched:
            for name in ("state.json", ".default.toml.tmp", "default.toml~", ".x.toml"):
                (path.parent / name).write_text("x")
                (path.parent.parent / name).write_text("x")
            (path.parent / "folder").mkdir()
            (path.parent / "link").symlink_to("/etc")
            (watched.marker.parent / "other").write_text("x")
            in_place(no_text)
            path.read_text()
            await watched.nothing_else()
            in_place(path)
            assert await watched.next() == CONFIG

    run(story)


def test_links_are_followed_to_where_the_files_are(tmp_path: Path) -> None:
    """A file linked from a repository is edited there; a linked folder is switched."""
    path = default(tmp_path)
    real = tmp_path / "dotfiles" / "any name"
    real.parent.mkdir()
    real.write_text("# one")
    path.symlink_to(real)
    other = tmp_path / "other"
    shutil.copytree(path.parent, other, symlinks=True)

    async def story() -> None:
        async with watching(Watched(tmp_path)) as watched:
            in_place(real)
            assert await watched.next() == CONFIG
            by_rename(real)
            assert await watched.next() == CONFIG
            path.parent.rename(tmp_path / "first")
            path.parent.symlink_to(tmp_path / "first")
            (tmp_path / "first" / "default.toml").unlink()
            assert await watched.next() == CONFIG
            path.parent.unlink()
            path.parent.symlink_to(other)
            assert await watched.next() == CONFIG
            await watched.nothing_else()

    run(story)


def mounted(folder: Path, version: str) -> None:
    """A secret as Kubernetes mounts it (pkg/volume/util/atomic_writer.go): one link switches all the files."""
    (folder / version).mkdir()
    for name in ("client_id", "client_secret"):
        (folder / version / name).write_text(version)
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").rename(folder / "..data")
    for name in ("client_id", "client_secret"):
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def test_the_credentials_of_a_store_are_watched(tmp_path: Path) -> None:
    """Plain files, and a Kubernetes mount that switches `..data`; the change names the folder."""
    plain, kubernetes, missing = (tmp_path / name for name in ("plain", "kubernetes", "missing"))
    plain.mkdir()
    kubernetes.mkdir()
    mounted(kubernetes, "..1")

    async def story() -> None:
        watched = Watched(tmp_path)
        watched.stores += [str(plain), str(kubernetes), str(missing)]
        async with watching(watched):
            (plain / "access_token").write_text("x")
            assert await watched.next() == Change(config=False, stores=frozenset([str(plain)]))
            mounted(kubernetes, "..2")
            assert await watched.next() == Change(config=False, stores=frozenset([str(kubernetes)]))
            shutil.rmtree(kubernetes / "..1")
            missing.mkdir()
            (missing / "client_id").write_text("x")
            assert await watched.next() == Change(config=False, stores=frozenset([str(missing)]))
            await watched.nothing_else()

    run(story)


def test_store_folders_that_come_with_a_new_configuration_are_watched_from_then_on(tmp_path: Path) -> None:
    """They are asked for again after each change; that they came is no change of theirs."""
    folder = tmp_path / "store"
    folder.mkdir()
    path = default(tmp_path)

    async def story() -> None:
        async with watching(Watched(tmp_path)) as watched:
            path.write_text("# one")
            watched.stores.append(str(folder))
            assert await watched.next() == CONFIG
            await watched.nothing_else()
            (folder / "client_secret").write_text("x")
            assert await watched.next() == Change(config=False, stores=frozenset([str(folder)]))
            watched.stores.remove(str(folder))
            path.write_text("# two")
            assert await watched.next() == CONFIG
            (folder / "client_secret").write_text("y")
            await watched.nothing_else()

    run(story)


def test_an_edit_between_reading_and_watching_is_not_lost(tmp_path: Path) -> None:
    """The look that was taken before the files were read is what the first one is compared with."""
    path = default(tmp_path)
    path.write_text("# one")
    changes: asyncio.Queue[Change] = asyncio.Queue()

    async def story() -> None:
        stop = asyncio.Event()
        seen = look(paths_in(tmp_path))
        in_place(path)
        task = asyncio.create_task(watch(paths_in(tmp_path), changes.put_nowait, stop, seen=seen, step=QUICK))
        async with asyncio.timeout(LIMIT):
            assert await changes.get() == CONFIG
            stop.set()
            await task

    run(story)


def test_what_is_called_may_be_a_coroutine_and_may_end_the_watch(tmp_path: Path) -> None:
    """It is awaited, and what it raises comes out."""

    async def changed(change: Change) -> None:
        raise LookupError(change)

    async def story() -> None:
        seen = look(paths_in(tmp_path))
        default(tmp_path).touch()
        await watch(paths_in(tmp_path), changed, asyncio.Event(), seen=seen, step=QUICK)

    with pytest.raises(LookupError, match="config=True"):
        run(story)


def test_with_the_agents_own_pace_an_edit_is_seen_within_five_seconds(tmp_path: Path) -> None:
    """The bound that the README gives, in the worst case: right after a glance, and in two steps."""
    path = default(tmp_path)
    changes: asyncio.Queue[Change] = asyncio.Queue()

    async def story() -> None:
        stop = asyncio.Event()
        hints = Watched(tmp_path)
        task = asyncio.create_task(watch(hints.paths, changes.put_nowait, stop, hints=hints))
        await hints.covered()
        path.write_text("# one")
        async with asyncio.timeout(5):
            assert await changes.get() == CONFIG
        stop.set()
        await task

    run(story)


def test_a_look_knows_every_file_that_is_read(tmp_path: Path) -> None:
    """What `load` reads and what the watch looks at are the same files."""
    paths = paths_in(tmp_path)
    default(tmp_path).touch()
    for name in (".x.toml", "x.toml~", "y.toml"):
        (Path(paths.written_dir) / name).touch()
    assert sorted(look(paths).config) == [
        paths.config_file,
        f"{paths.written_dir}/default.toml",
        f"{paths.written_dir}/y.toml",
    ]
