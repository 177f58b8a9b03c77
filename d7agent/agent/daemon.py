"""Wiring: makes the agent's parts, joins them, and lets them run until a signal or `stop` ends them."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, Final

from d7agent import __version__
from d7agent.agent import access, files, hardening, journal, limits, watch
from d7agent.agent.agent import Agent
from d7agent.agent.helpers import Helpers
from d7agent.agent.hooks import Hooks
from d7agent.agent.keeper import Keeper
from d7agent.agent.looking import Change
from d7agent.agent.server import Server
from d7agent.agent.service import Service
from d7agent.agent.sinks import Sinks
from d7agent.agent.sockets import AgentRunning, BoundSocket, bind_socket
from d7agent.agent.standing import Standing
from d7agent.agent.systemd import Notifier, passed_sockets
from d7agent.core.clock import SystemClock
from d7agent.core.errors import ConfigError
from d7agent.core.paths import Paths, system_paths, user_paths
from d7agent.wire.messages import SinkStatus

log = logging.getLogger(__name__)

GRACE: Final = 2.0  # seconds for replies under way at the end
USER_MODES: Final = (0o600, 0o700)  # socket and folder
SYSTEM_MODES: Final = (0o666, 0o755)  # who may ask is decided by peer credentials


class Daemon:
    """One agent process from start to end; the service's Surroundings."""

    def __init__(self, paths: Paths, notifier: Notifier, memory: str, idle_exit: float | None) -> None:
        self.systemd = notifier.active
        self._memory = memory
        self._idle_exit = idle_exit
        self._end = asyncio.Event()
        self._known: dict[str, object] = {}  # how the folders of `directory` stores looked last
        clock = SystemClock()
        self._used, self._called = clock.now().boot, 0.0  # when it was last in use; the last call that was seen
        self.agent = Agent(paths, clock, Helpers(dict(os.environ)))
        policy = access.Policy(os.geteuid(), system=paths.system)
        self.service = Service(self.agent, policy, self)
        files_at_most = limits.raise_nofile()
        self.server = Server(self.service, limits.fit(limits.Limits(), files_at_most), clock)
        self.agent.on_configured.append(self._apply_access)
        self.agent.on_turn.append(self._turned)
        self.agent.on_stored.append(self._remember_look)
        self._standing = Standing(self.agent, notifier)
        self._sinks = Sinks(self.agent)
        self._hooks = Hooks(self.agent, dict(os.environ), before=self._sinks.settled)

    def memory(self) -> str:
        """How secrets in memory are guarded."""
        return self._memory

    def sinks(self, profile: str) -> tuple[SinkStatus, ...]:
        """How the profile's always-fresh files do."""
        return self._sinks.status(profile)

    async def sinks_settled(self, profile: str) -> None:
        """Wait until the profile's always-fresh files are as they should be."""
        await self._sinks.settled(profile)

    def hooks(self) -> tuple[str, ...]:
        """What went wrong with hooks lately."""
        return self._hooks.status()

    def connections(self) -> int:
        """Open connections."""
        return self.server.connections

    def shutdown(self) -> None:
        """End the agent."""
        self._end.set()

    async def run(self, sockets: list[socket.socket]) -> None:
        """Serve on these bound sockets until the end."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_unexpected)
        for number, act in self._signals().items():
            loop.add_signal_handler(number, act)
        files.tidy(self.agent.paths)
        seen = watch.look(self.agent.paths, self._store_folders())
        self.agent.load()
        self._look_at_stores(act=False)
        self.agent.alarm.start()
        for sock in sockets:
            await self.server.listen(sock)
        watching = loop.create_task(watch.watch(self.agent.paths, self._edited, self._end, self._store_folders, seen))
        watching.add_done_callback(_watch_ended)
        self._standing.ready()
        log.info("d7agent %s is ready, profiles: %s", __version__, ", ".join(self.agent.keepers) or "none")
        await self._end.wait()
        await self._wind_down(watching)

    async def _wind_down(self, watching: "asyncio.Task[None]") -> None:
        self._standing.ending()
        log.info("ending")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await self.service.owner.settled()
        await self.server.close(GRACE)
        await self._hooks.close()
        await self.agent.close()
        await self._sinks.close(GRACE)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    def _signals(self) -> dict[signal.Signals, Callable[[], Any]]:
        return {
            signal.SIGTERM: self._end.set,
            signal.SIGINT: self._end.set,
            signal.SIGHUP: self._reload,
        }

    def _reload(self) -> None:
        log.info("reading the configuration again")
        self.agent.reload()

    def _edited(self, change: Change) -> None:
        if change.config:
            self._reload()
        self._look_at_stores(act=True)

    def _look_at_stores(self, *, act: bool) -> None:
        """Compare each store's folder with how we knew it: what we wrote ourselves is no edit."""
        for name, folder in self._stores().items():
            found = self._look(folder)
            if act and folder in self._known and found != self._known[folder] and name in self.agent.keepers:
                self.agent.credential_changed(name)
            self._known[folder] = found

    def _remember_look(self, keeper: Keeper) -> None:
        kind, _, folder = keeper.profile.store.partition(":")
        if kind == "directory":
            self._known[folder] = self._look(folder)

    def _look(self, folder: str) -> object:
        return watch.look(self.agent.paths, [folder]).stores.get(folder)

    def _stores(self) -> dict[str, str]:
        """The folders of `directory` stores, by profile."""
        stores = {name: profile.store.partition(":") for name, profile in self.agent.config.profiles.items()}
        return {name: rest for name, (kind, _, rest) in stores.items() if kind == "directory"}

    def _store_folders(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._stores().values()))

    def _apply_access(self) -> None:
        paths = self.agent.paths
        allowed, problems = access.resolve(self.agent.config.access) if paths.system else (access.Allowed(), ())
        for problem in problems:
            log.error("%s", problem)
        self.agent.problems = tuple(dict.fromkeys((*self.agent.problems, *problems)))
        self.service.policy = access.Policy(os.geteuid(), system=paths.system, allowed=allowed)
        self.server.policy_changed()

    def _turned(self) -> None:
        """Leave when unused for long enough. A call for a token is a use, and so is a connection until it ends."""
        if self._idle_exit is None:
            return
        now, called = self.agent.clock.now().boot, self.agent.callers.latest
        if self.server.connections or called != self._called:
            self._used, self._called = now, called
        if now - self._used > self._idle_exit:
            log.info("nobody has asked for %.0f s: ending", self._idle_exit)
            self._end.set()


def _unexpected(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A bug: told by type and place alone, for its values may be secrets."""
    error = context.get("exception")
    log.error("%s", context.get("message", "unexpected"), exc_info=error if isinstance(error, Exception) else None)


def _watch_ended(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("edits of the configuration are no longer noticed; `d7agent reload` works", exc_info=task.exception())


def main(*, socket: str | None, system: bool, idle_exit: float | None, log_level: str) -> int:
    """Run the agent in the foreground until it is told to end; the exit status."""
    journal.start(log_level)
    memory = hardening.harden()
    notifier = Notifier(os.environ)
    passed = passed_sockets(os.environ)
    bound: BoundSocket | None = None
    try:
        paths = system_paths(os.environ) if system else user_paths(os.environ, os.geteuid(), files.is_ours)
        if not passed:
            bound = bind_socket(socket or paths.socket, *(SYSTEM_MODES if system else USER_MODES))
    except AgentRunning as error:
        return _refused(str(error), "use it, or end it with: d7agent stop")
    except ConfigError as error:
        return _refused(str(error), "mend it and start the agent again; `d7agent doctor` looks at everything")
    try:
        sockets = passed or [bound.sock] if bound else passed
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(paths, notifier, memory, idle_exit, sockets))
    finally:
        if bound is not None:
            bound.close()
    return 0


async def _serve(
    paths: Paths, notifier: Notifier, memory: str, idle_exit: float | None, sockets: list[socket.socket]
) -> None:
    await Daemon(paths, notifier, memory, idle_exit).run(sockets)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # where there is no wheel, plain asyncio serves
    except ImportError:
        return None
    return uvloop.new_event_loop


def _refused(message: str, hint: str) -> int:
    log.error("error: %s", message)
    log.error("hint: %s", hint)
    return 1
