"""What the processes tell each other: msgpack arrays, a tag and the fields.

    supervisor <-> worker    Start, Link, Drain, Hurry, Renew, Inspect
                                                                |  Ready, Failed, Beat, Wish, Open,
                                                                |  Unlinked, Told
    supervisor <-> owner     Configure, Connect, Dead, Dismiss, Forget, Reopen, Say, Hold, GoOn,
                             Close
                                                                |  Configured, Refused, Pulse, Held
    worker     <-> owner     Hello, Turn, Bye                   |  Ack

The owner is the process that has the log files. Times are seconds, wall clock where it says so,
else of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from h2log.config import LogSettings, Settings
from h2log.workers.program import Program

__all__ = [
    "APP",
    "SESSION",
    "Ack",
    "Beat",
    "Bye",
    "Close",
    "Configure",
    "Configured",
    "Connect",
    "Dead",
    "Dismiss",
    "Doing",
    "Drain",
    "Failed",
    "Forget",
    "GoOn",
    "Held",
    "Hello",
    "Hold",
    "Hurry",
    "Inspect",
    "Link",
    "Open",
    "OpenRequest",
    "OpenSession",
    "Progress",
    "Pulse",
    "Ready",
    "Refused",
    "Renew",
    "Reopen",
    "Say",
    "Span",
    "Start",
    "Told",
    "Turn",
    "Unlinked",
    "Wish",
    "encode",
    "from_owner",
    "from_worker",
    "to_owner",
    "to_worker",
    "with_owner",
]

SESSION: Final = -1
"""The session log among the outputs; those of the access log are 0 and up, as configured."""
APP: Final = -2
"""The application's log."""


class _Part(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A part of a message."""


class _Message(msgspec.Struct, array_like=True, frozen=True, tag=True):
    """A message: an array whose first element is its name."""


# What a worker's log tells the owner


class OpenSession(_Part, frozen=True):
    """A connection, as it was when the owner was told of it."""

    id: str
    client: str
    port: int
    wall: float
    opened: float
    protocol: str
    alpn: str
    tls: tuple[str, str, str, bool] | None


class OpenRequest(_Part, frozen=True):
    """A request that is still open at the end of a turn: all that its last line may need."""

    session: str
    id: str
    stream: int
    wall: float
    start: float
    method: str
    path: str
    scheme: str
    authority: str
    fields: tuple[tuple[bytes, bytes], ...]
    header_received: int
    nth: int
    active: int
    origin: tuple[tuple[str, int], str, str] | None = None


class Progress(_Part, frozen=True):
    """What a session has come to."""

    session: str
    requests: int
    finished: int
    failures: dict[str, int]
    peak: int
    received: int
    sent: int
    last_stream: int


class Span(_Part, frozen=True):
    """Lines of one output, numbers `first` to `last`; without `text` they are missing.

    `hurry` says that they are to be written without waiting for more.
    """

    output: int
    lines: int
    first: int
    last: int
    text: bytes
    reason: str = ""
    hurry: bool = False


class Hello(_Message, frozen=True):
    """The first message of a link: what the owner has to know that was told another before.

    `sequence` is the last number whose line is taken care of; the next `again` turns were sent
    before, to an owner that may or may not have written their lines.
    """

    sequence: int
    sessions: list[OpenSession]
    requests: list[OpenRequest]
    again: int


class Turn(_Message, frozen=True):
    """What has happened in a turn of a worker's loop; `last` is the number of its last record.

    `arrivals` is how many requests have had a line at their arrival, or were left out.
    """

    turn: int
    last: int
    spans: list[Span]
    sessions: list[OpenSession]
    opened: list[OpenRequest]
    ended: list[str]
    gone: list[str]
    progress: list[Progress]
    arrivals: int = 0


class Bye(_Message, frozen=True):
    """Nothing more comes, and nothing is open."""


class Ack(_Message, frozen=True):
    """Every turn up to this one is taken care of: written, or counted as missing."""

    turn: int


# What the supervisor tells a worker


class Start(_Message, frozen=True):
    """Serve. With it come the journal, the board and the listening sockets.

    `place` is the worker's on the board, `share` the number of workers that share the limits.
    """

    number: int
    place: int
    share: int
    generation: int
    settings: Settings
    program: Program


class Link(_Message, frozen=True):
    """With it comes a socket to the owner."""


class Drain(_Message, frozen=True):
    """Take no more connections, finish what is open within `timeout`, and end.

    `last` says that nobody else will take what the kernel still holds for the listening sockets.
    """

    timeout: float
    last: bool


class Hurry(_Message, frozen=True):
    """Finish at once."""


class Renew(_Message, frozen=True):
    """Read the certificate anew."""


class Inspect(_Message, frozen=True):
    """Tell which requests are open."""

    question: int
    most: int


class Doing(_Part, frozen=True):
    """A request that is open, for a person; `age` in seconds."""

    session: str
    id: str
    client: str
    method: str
    path: str
    age: float


class Open(_Message, frozen=True):
    """The open requests, the oldest first; the answer to an `Inspect`.

    `tasks` is the number of tasks of the loop that have not ended: to count them takes a while.
    """

    question: int
    requests: list[Doing]
    tasks: int


class Ready(_Message, frozen=True):
    """The worker serves."""

    url: str


class Failed(_Message, frozen=True):
    """The worker cannot serve: `text` says why; `code` is the exit code that it is worth."""

    code: int
    text: str


class Beat(_Message, frozen=True):
    """A worker is alive; since its start: what it has now, and has had."""

    connections: int
    active: int
    """Requests that are open."""
    requests: int
    """Requests finished."""
    sessions: int
    """Connections accepted."""
    sent: int
    """Bytes of content sent."""
    resident: int
    """Bytes of memory."""
    waiting: int
    """Bytes of lines that the owner has not taken care of."""
    dropped: int
    """Lines given up."""


class Unlinked(_Message, frozen=True):
    """The socket of a `Link` has not come: the worker had no descriptor for it."""


class Told(_Message, frozen=True):
    """A line of the worker's own log, while it has no link to the owner: before, and at the end."""

    text: str


class Wish(_Message, frozen=True):
    """A worker wants to be replaced, and says why."""

    reason: str


# What the supervisor tells the owner


class Configure(_Message, frozen=True):
    """Open what `log` names, for the workers of `generation`. With it come the marks.

    `again` says that another process had it before, and was killed.
    """

    generation: int
    log: LogSettings
    again: bool


class Connect(_Message, frozen=True):
    """A worker; with it come the socket to it and its journal."""

    worker: int
    generation: int


class Dead(_Message, frozen=True):
    """A worker has ended, and why."""

    worker: int
    reason: str


class Dismiss(_Message, frozen=True):
    """Nobody will be told of the end of a worker again."""

    worker: int


class Forget(_Message, frozen=True):
    """A generation has no workers any more."""

    generation: int


class Reopen(_Message, frozen=True):
    """See whether the paths still name the open files."""


class Say(_Message, frozen=True):
    """A line of the supervisor's own log; `shown` when it stands on standard error already."""

    text: str
    shown: bool = False


class Hold(_Message, frozen=True):
    """Write what there is for standard output and error; then nothing, until `GoOn`."""


class GoOn(_Message, frozen=True):
    """Write again."""


class Close(_Message, frozen=True):
    """Write what is left, close, and end."""


class Configured(_Message, frozen=True):
    """All of a generation's logs are open."""

    generation: int


class Held(_Message, frozen=True):
    """The owner writes nothing to standard output or error: the answer to `Hold`."""


class Refused(_Message, frozen=True):
    """A generation's logs cannot be opened."""

    generation: int
    text: str


class Pulse(_Message, frozen=True):
    """The owner is alive; how each open log does (`Health`), and its tasks that have not ended.

    It has obeyed so many of the supervisor's messages; `workers` are those whose accounts it has
    not closed, or not yet written.
    """

    health: list[dict[str, Any]]
    tasks: int
    obeyed: int
    workers: list[int]


_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
"""Return a message's bytes."""

to_worker: Final = msgspec.msgpack.Decoder(Start | Link | Drain | Hurry | Renew | Inspect)
from_worker: Final = msgspec.msgpack.Decoder(Ready | Failed | Beat | Wish | Open | Unlinked | Told)
to_owner: Final = msgspec.msgpack.Decoder(
    Configure | Connect | Dead | Dismiss | Forget | Reopen | Say | Hold | GoOn | Close
)
from_owner: Final = msgspec.msgpack.Decoder(Configured | Refused | Pulse | Held)
with_owner: Final = msgspec.msgpack.Decoder(Hello | Turn | Bye | Ack)
