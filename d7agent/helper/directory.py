"""The `directory` store: files `client_id` and `client_secret`, or `access_token`.

A credential mount (systemd's credentials, Docker's and Kubernetes' secrets) is read as it is. Any other folder has to
be private: its files ours or root's, and closed to everyone else, with nothing on the way to them that others could
change. A private folder of ours can also be written.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from d7agent.core.jobs import Target
from d7agent.helper.faults import Invalid, StoreUnreachable
from d7agent.helper.manifest import Manifest
from d7agent.helper.private_files import check_way, secret_text
from d7agent.helper.stores import PARTS, AlwaysOpen, Credential, Shelf, assembled
from d7agent.helper.token_file import TokenFile, state_shelf

MOUNTS: Final = (Path("/run/credentials"), Path("/run/secrets"))  # systemd.exec(5); Docker and Podman
SYSTEMD: Final = "CREDENTIALS_DIRECTORY"


class DirectoryStore(AlwaysOpen):
    """One folder."""

    pinned = None

    def __init__(self, argument: str, target: Target, env: Mapping[str, str]) -> None:
        self._path = expanded(argument, env)
        with _entered(self._path):
            self._mount = is_mount(self._path, env)
        self._target = target

    @property
    def writable(self) -> bool:
        """Whether the folder is ours and private, or could be made where it is wanted."""
        if self._mount:
            return False
        try:
            folder = next((path for path in (self._path, *self._path.parents) if path.exists()), self._path)
            found = folder.stat()
        except OSError:
            return False
        ours = found.st_uid == os.geteuid() and found.st_mode & 0o022 == 0
        return folder.is_dir() and ours and os.access(folder, os.W_OK | os.X_OK)

    @property
    def shelf(self) -> Shelf | None:
        """The agent's state folder if it has one, else a hidden file in this folder if that is ours to write."""
        beside = TokenFile(self._path / f".{self._target.profile}.token") if self.writable else None
        return state_shelf(self._target) or beside

    def read(self) -> Credential | None:
        """The credential. A change that was cut short counts as done, and is finished now if it can be."""
        if self._mount:
            self._check_links()
        found = self._unfinished() if self.writable else None
        if found is None:
            texts = {part: secret_text(self._path / part, shared=self._mount) for part in PARTS}
            found = {part: text for part, text in texts.items() if text is not None}
        return assembled(found, str(self._path), self._target.client_id)

    def _check_links(self) -> None:
        """Whose link leads to a mount decides which one it is."""
        with contextlib.suppress(OSError):  # what is wrong with the way is told when the files are opened
            check_way(self._path, links_only=True)

    def _unfinished(self) -> dict[str, str] | None:
        """What a change that was cut short has put there; None if there is none, or what is there by now counts."""
        manifest = Manifest(self._path)
        found = manifest.unfinished()
        with contextlib.suppress(StoreUnreachable):
            manifest.settle()
        return found or None

    def write(self, credential: Credential) -> None:
        """Replace the files, and remove those of the other kind that we wrote."""
        if not self.writable:
            hint = "name a folder of the agent's user, mode 0700, or put the files there yourself"
            raise StoreUnreachable(f"{self._path} is not ours to write", hint)
        Manifest(self._path).write(credential)

    def delete(self) -> tuple[str, ...]:
        """Remove the files we wrote; answers the paths of those a person wrote or has changed since."""
        if self.writable:
            Manifest(self._path).delete()
        return tuple(str(self._path / part) for part in PARTS if (self._path / part).exists())


@contextlib.contextmanager
def _entered(path: Path) -> Iterator[None]:
    """OSError of a path that cannot even be followed, turned into StoreUnreachable."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
    else:
        return
    raise StoreUnreachable(
        f"{path} cannot be reached: {why}", "give the user of this agent access, or choose another folder"
    )


def expanded(argument: str, env: Mapping[str, str]) -> Path:
    """The absolute path: `~`, `%d` and `$CREDENTIALS_DIRECTORY` are known. Raises Invalid and StoreUnreachable."""
    head, slash, rest = argument.partition("/")
    if head in ("%d", f"${SYSTEMD}", f"${{{SYSTEMD}}}"):
        if not env.get(SYSTEMD):
            hint = "give the agent's unit a LoadCredential= or SetCredential= line, or name the folder itself"
            raise StoreUnreachable(f"{SYSTEMD} is not set: this agent was given no systemd credentials", hint)
        head = env[SYSTEMD]
    path = Path(head + slash + rest).expanduser() if argument else Path()
    if not path.is_absolute():
        hint = "write directory:/the/whole/path, directory:~/path or directory:%d"
        raise Invalid("store", "the path of a directory store is not absolute", hint)
    return path


def is_mount(folder: Path, env: Mapping[str, str]) -> bool:
    """Whether the folder is a credential mount, whose modes and owners are for whoever mounted it to choose.

    It is one at or below $CREDENTIALS_DIRECTORY, /run/credentials or /run/secrets, or as a Kubernetes volume: mounted
    read-only, with the `..data` link that the kubelet makes.
    """
    real = folder.resolve()
    roots = [*MOUNTS, *([Path(env[SYSTEMD]).resolve()] if env.get(SYSTEMD) else [])]
    if any(real == root or root in real.parents for root in roots):
        return True
    try:
        return (real / "..data").is_symlink() and bool(os.statvfs(real).f_flag & os.ST_RDONLY)
    except OSError:
        return False
