"""The process that looks after the others: it binds, starts workers, replaces them, and stops them.

    SIGTERM, SIGINT      drain all and end; a second one hurries
    SIGHUP               settings, code and certificate anew, worker by worker; on failure the old
                         ones stay
    SIGUSR1              look whether the logs' paths name the open files
    SIGTTIN, SIGTTOU     a worker more, a worker less

It runs no code of the application and answers no request. The listening sockets are its own: a
worker may end in any way, what the kernel has accepted waits for another.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from h2log.clock import monotonic
from h2log.config import AdminSettings, ServerSettings, Settings
from h2log.errors import StartupError, UsageError
from h2log.logfile.applog import WriterHandler, configure
from h2log.logfile.faults import install
from h2log.server.loop import loop_factory
from h2log.server.renewal import LOOK_EVERY, PairWatch, hung_up, renewed
from h2log.server.sockets import UnixSocket, bind, given_sockets, listening
from h2log.workers.children import Orphans
from h2log.workers.control import Control, control_path
from h2log.workers.crew import Crew
from h2log.workers.fleet import BootError, Generation, Slot, Worker
from h2log.workers.messages import Beat
from h2log.workers.notify import Notifier
from h2log.workers.program import Program, count_of

if TYPE_CHECKING:
    from h2log.workers.admin import Admin
    from h2log.workers.sources import Sources

__all__ = ["supervise"]

_logger = logging.getLogger("h2log.workers")

_ANSWER: Final = 1.0
"""Seconds for a worker to tell of its open requests."""
_LATE: Final = 2.0
"""Seconds after which a look is late: this process did not run, or the machine is very busy."""
_ADMIN_BACKLOG: Final = 64
_MOST_SHOWN: Final = 50
"""Open requests that a status has, the oldest."""


def supervise(
    program: Program,
    settings: Settings,
    announce: Callable[[str], None],
    reload: Callable[[], Settings],
    sources: Sources | None = None,
) -> bool:
    """Serve `program` by several workers until SIGTERM or SIGINT; return whether a log was stuck.

    `announce` is called with the URL when all of them serve; `reload` returns the settings as they
    are now. When `sources` change, it is as if SIGHUP had come. Raises UsageError and StartupError
    for what stops the start.
    """
    gc.freeze()  # what was loaded stays; the end need not take it apart
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_Supervisor(program, settings, reload, sources).run(announce))


def status_of(worker: Worker) -> dict[str, Any]:
    """Return what is told of a worker."""
    beat = worker.beat or Beat(*(0,) * len(Beat.__struct_fields__))
    return {
        "number": worker.number,
        "pid": worker.pid,
        "generation": worker.generation.number,
        "state": worker.state,
        "age": worker.lived,
        "heard": monotonic() - worker.beaten if worker.beaten else None,
        "rate": worker.rate,
        "tasks": worker.tasks,
        **msgspec.structs.asdict(beat),
    }


def _place(server: ServerSettings) -> tuple[str, int]:
    """Return where the settings say to listen."""
    return (server.unix, 0) if server.unix else (server.host, server.port)


class _HalfwayError(Exception):
    """Some workers are new, then one could not begin."""

    def __init__(self, done: int, wanted: int, error: Exception) -> None:
        super().__init__(f"only {done} of {wanted} workers are new, the others go on: {error}")


class _Supervisor:
    def __init__(
        self,
        program: Program,
        settings: Settings,
        reload: Callable[[], Settings],
        sources: Sources | None,
    ) -> None:
        self._program = program
        self._sources = sources
        self._settings = settings
        self._read_settings = reload
        self._newest = 1  # the number of the newest generation
        self._wanted_reloads: list[asyncio.Future[str]] = []
        self._began = monotonic()
        self._looking = asyncio.Lock()  # one status at a time
        self._reloading = True  # the first workers are to begin before

    async def run(self, announce: Callable[[str], None]) -> bool:
        """Serve until asked to stop; return whether a log was stuck."""
        settings = self._settings
        self._asked: asyncio.Queue[int] = asyncio.Queue()
        self._notifier = Notifier()
        watch = PairWatch(settings.tls.files)  # before anybody reads them: no change is missed
        given = given_sockets()
        # What was handed over stays for good: a reload binds nothing in its place.
        self._handed = bool(given) or settings.server.fd >= 0
        sockets = listening(settings.server, given)
        self._crew = Crew(self._program, Generation(1, settings, sockets))
        self._keeper = self._crew.keeper
        self._admin_place = settings.admin
        self._admin = self._new_admin(settings.admin)
        self._signals()
        uninstall = install(asyncio.get_running_loop())
        if self._sources is not None:
            await self._sources.watch()
        try:
            boots = self._crew.begin(count_of(settings))
            try:
                await self._keeper.start(1, settings.log)
            except BaseException as error:
                await self._crew.stop(0.0)
                if isinstance(error, UsageError) and not self._asked.empty():
                    return False  # who wants our end has told the owner, too
                raise
            self._crew.logs_are_open()
            handler = WriterHandler(self._keeper)
            logging.getLogger().addHandler(handler)
            configure(settings.log.level, console=False)
            self._control = Control(control_path(settings), self._answer)
            try:
                if self._admin is not None:
                    await self._admin.open()
                if url := await self._begin(boots):
                    await self._control.open()
                    async with self._keeper.alone():
                        self._announce(announce, url)
                    self._crew.spawn(self._look(watch))
                    if self._sources is not None:
                        self._crew.spawn(self._follow(self._sources))
                    self._notifier.ready(f"{len(self._crew.slots)} workers serve")
                    self._reloading = False
                    self._reload_wanted()
                    await self._asked.get()
            finally:
                self._notifier.stopping()
                await self._stop()
                if self._admin is not None:
                    self._admin.close()
                await self._control.end()
                stuck = await self._keeper.close()
                logging.getLogger().removeHandler(handler)
                configure(settings.log.level)
        finally:
            if self._sources is not None:
                await self._sources.stop()
            uninstall()
            self._crew.close_sockets()
        return stuck

    def _new_admin(self, place: AdminSettings) -> Admin | None:
        """Return the admin listener, if there is to be one. Raises UsageError."""
        if not place.port:
            return None
        from h2log.workers.admin import Admin

        names = ("admin.host", "admin.port")
        sockets = bind(place.host, place.port, _ADMIN_BACKLOG, names)
        return Admin(sockets, self._is_ready, self._counters)

    def _signals(self) -> None:
        loop = asyncio.get_running_loop()
        closed = hung_up()

        def hang_up() -> None:
            if closed():
                self._asked.put_nowait(int(signal.SIGHUP))
            else:
                self.reload()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked.put_nowait, int(number))
        loop.add_signal_handler(signal.SIGHUP, hang_up)
        loop.add_signal_handler(signal.SIGUSR1, self._keeper.reopen)
        loop.add_signal_handler(signal.SIGTTIN, self._crew.more)
        loop.add_signal_handler(signal.SIGTTOU, self._crew.fewer)

    async def _begin(self, boots: list[asyncio.Task[None]]) -> str:
        """Wait for all workers; return where they serve, nothing when somebody wants the end.

        Raises UsageError or StartupError for what the first that failed has said.
        """
        asked = asyncio.ensure_future(self._asked.get())
        everything = asyncio.gather(*boots)
        # Where somebody wants the end, nobody asks what has become of it.
        everything.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            await asyncio.wait((everything, asked), return_when=asyncio.FIRST_COMPLETED)
            if not everything.done():
                return ""
            try:
                await everything
            except BootError as error:
                self._crew.stopping = True  # the others are not to be replaced
                kind = StartupError if error.code == 3 else UsageError
                raise kind(str(error)) from None
        finally:
            if asked.done():
                self._asked.put_nowait(asked.result())
            asked.cancel()
            everything.cancel()
            for boot in boots:
                boot.cancel()
        return self._crew.url

    def _announce(self, announce: Callable[[str], None], url: str) -> None:
        try:
            announce(url)
        except OSError as error:
            raise UsageError(f"cannot write to standard output: {error.strerror}") from None

    async def _look(self, watch: PairWatch) -> None:
        """Look after the workers and the certificate, which has `watch`, from time to time."""
        tls = self._settings.tls
        orphans = Orphans()
        looked = monotonic()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._settings.tls != tls:
                tls = self._settings.tls
                watch = PairWatch(tls.files)
            now = monotonic()
            late, looked = now - looked > _LATE, now
            if late:  # we were stopped ourselves, and the signs of life wait to be read
                continue
            self._notifier.alive()
            self._keeper.look()
            self._crew.look(now)
            orphans.look({self._keeper.pid, *(w.pid for w in self._crew.workers.values())})
            if not self._settings.server.insecure and watch.changed():
                self._renew()

    def _renew(self) -> None:
        """Have the certificate read anew, if it can be used."""
        if renewed(self._settings.tls) is not None:
            self._crew.renew()

    # Another generation

    def reload(self) -> asyncio.Future[str]:
        """Read the settings, and replace every worker by one of the code and settings of now.

        The result is what was done; or ValueError with what stands in the log then.
        """
        result: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        result.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._crew.stopping:
            result.cancel()
        else:
            self._wanted_reloads.append(result)
            self._reload_wanted()
        return result

    def _reload_wanted(self) -> None:
        """Reload if somebody has asked for it, and nobody does it already."""
        if self._wanted_reloads and not self._reloading:
            self._reloading = True
            self._crew.spawn(self._reload_all())

    async def _follow(self, sources: Sources) -> None:
        """Reload whenever the application's files have changed."""
        while True:
            files = await sources.changed()
            _logger.warning("%s changed: reloading", ", ".join(files))
            await asyncio.wait((self.reload(),))

    async def _reload_all(self) -> None:
        """Reload as long as somebody asks; who asks meanwhile is answered by the next one."""
        waiting: list[asyncio.Future[str]] = []
        try:
            while self._wanted_reloads:
                waiting, self._wanted_reloads = self._wanted_reloads, []
                self._notifier.reloading()
                try:
                    done = await self._reload()
                except (UsageError, BootError, _HalfwayError) as error:
                    text = str(error)
                    if not isinstance(error, _HalfwayError):
                        text = f"nothing is reloaded, the old workers go on: {text}"
                    _logger.error("%s", text)
                    for result in waiting:
                        if not result.done():
                            result.set_exception(ValueError(text))
                else:
                    for result in waiting:
                        if not result.done():
                            result.set_result(done)
                finally:
                    if not self._crew.stopping:
                        self._notifier.ready(f"{len(self._crew.slots)} workers serve")
        finally:
            self._reloading = False
            for result in [*waiting, *self._wanted_reloads]:
                result.cancel()

    async def _reload(self) -> str:
        old = self._crew.generation
        settings = self._read_settings()
        server, before = settings.server, old.settings.server
        sockets = old.sockets
        gone = any(isinstance(sock, UnixSocket) and sock.unreachable for sock in sockets)
        if (gone or _place(server) != _place(before)) and not self._handed:
            sockets = listening(msgspec.structs.replace(server, fd=-1), [])
        self._newest += 1
        new = Generation(self._newest, settings, sockets)
        done = 0
        replaced: set[Slot] = set()
        admin: Admin | None = None
        moved = settings.admin != self._admin_place
        try:
            if moved:
                admin = self._new_admin(settings.admin)
            await self._keeper.configure(new.number, settings.log)
            # Slots may come meanwhile, whose workers are of the old generation.
            while left := [slot for slot in self._crew.slots if slot not in replaced]:
                await self._crew.replace(left[0], new)
                replaced.add(left[0])
                done += 1
                self._crew.generation, self._settings = new, settings
        except (UsageError, BootError) as error:
            if admin is not None:
                admin.close()
            if done:
                raise _HalfwayError(done, len(self._crew.slots), error) from None
            self._keeper.forget(new.number)
            if sockets is not old.sockets:
                for sock in sockets:
                    sock.close()
            raise
        except asyncio.CancelledError:  # the server stops, and closes those in force
            if admin is not None:
                admin.close()
            if sockets is not old.sockets:
                for sock in old.sockets if self._crew.generation is new else sockets:
                    sock.close()
            raise
        self._crew.close_sockets(but=sockets)
        configure(settings.log.level, console=False)
        if moved:
            before_admin, self._admin, self._admin_place = self._admin, admin, settings.admin
            if before_admin is not None:
                before_admin.close()
            if admin is not None:
                await admin.open()
        if control_path(settings) != self._control.path or self._control.unreachable:
            await self._control.close()
            self._control = Control(control_path(settings), self._answer)
            await self._control.open()
        if settings.server.workers != before.workers:
            while len(self._crew.slots) < count_of(settings):
                self._crew.more()
            while len(self._crew.slots) > count_of(settings):
                self._crew.fewer()
        text = f"reloaded: {done} workers are new"
        _logger.info("%s", text)
        return text

    # What the control socket is asked

    async def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        match question.get("do"):
            case "status":
                return await self._told()
            case "reload":
                asked = self.reload()
                await asyncio.wait((asked,))
                if asked.cancelled():
                    raise ValueError("nothing is reloaded: the server stops")
                return {"done": asked.result()}
            case "stop":
                self._asked.put_nowait(int(signal.SIGTERM))
                return {"pid": os.getpid()}
        raise ValueError("a question is to do status, reload or stop")

    def _is_ready(self) -> bool:
        return not self._crew.stopping and any(slot.worker is not None for slot in self._crew.slots)

    async def _counters(self) -> dict[str, Any]:
        return {name: value for name, value in (await self._told()).items() if name != "requests"}

    async def _told(self) -> dict[str, Any]:
        async with self._looking:
            return await self._status()

    async def _status(self) -> dict[str, Any]:
        workers = sorted(self._crew.workers.values(), key=lambda worker: worker.number)
        serving = [worker for worker in workers if worker.serving]
        doing = await asyncio.gather(*(worker.doing(_MOST_SHOWN, _ANSWER) for worker in serving))
        requests = [
            {"worker": worker.number, **msgspec.structs.asdict(request)}
            for worker, found in zip(serving, doing, strict=True)
            for request in found
        ]
        requests.sort(key=lambda request: -request["age"])
        told = [status_of(worker) for worker in workers]
        names = ("connections", "active", "requests", "sessions", "sent", "rate", "dropped")
        return {
            "pid": os.getpid(),
            "url": next((worker.url for worker in serving), ""),
            "age": monotonic() - self._began,
            "generation": self._crew.generation.number,
            "wanted": len(self._crew.slots),
            "started": self._crew.spawned,
            "tasks": len(asyncio.all_tasks()),
            "workers": told,
            "total": {name: sum(worker[name] for worker in told) for name in names},
            "requests": requests[:_MOST_SHOWN],
            "owner": {
                "pid": self._keeper.pid,
                "restarts": self._keeper.restarts,
                "tasks": self._keeper.tasks,
                "logs": self._keeper.health,
            },
        }

    # The end

    async def _stop(self) -> None:
        """Drain all, and return when all have ended; a signal meanwhile hurries them."""
        again = asyncio.create_task(self._hurry())
        for result in self._wanted_reloads:  # who is to answer them may not have begun
            result.cancel()
        await self._crew.stop(self._settings.server.drain_timeout)
        again.cancel()

    async def _hurry(self) -> None:
        while True:
            await self._asked.get()
            self._crew.hurry()
