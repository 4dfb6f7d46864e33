"""`h2log certs`: make, renew or repair the development certificates, and say how to trust them."""

from __future__ import annotations

from pathlib import Path

import click

from h2log.server.certificates import Action, Certificates, Step, make_certificates
from h2log.server.trust import trust_instructions

__all__ = ["certs"]

COLORS = {Action.CREATED: "green", Action.REISSUED: "yellow", Action.REUSED: "cyan"}
LABEL = 13  # columns: the longest label and two spaces


@click.command(short_help="Make development certificates.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("certs"),
    show_default=True,
    metavar="DIR",
    help="Folder of the certificates and keys; made when it is not there.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="A further DNS name, wildcard or IP address that the server goes by. Repeatable.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Issue the server's certificate anew, with a new key, though it is good."
    " Replaces a pair that was made elsewhere, too.",
)
def certs(folder: Path, names: tuple[str, ...], force: bool) -> None:
    """Make development certificates: a local authority, and a certificate that it issues.

    Running it again changes nothing while all is good: the authority is reused, and the
    certificate is issued anew when the names change or a third of its 90 days is left.
    """
    # click drops the colours by itself where the output is not a terminal.
    for line in summary(make_certificates(folder, names, force=force)):
        click.echo(line)


def summary(made: Certificates) -> list[str]:
    """Return the lines, with colours, that say what is where, what was done and what is left."""

    def row(label: str, text: str) -> str:
        return click.style(f"{label:<{LABEL}}", bold=True) + text

    def done(step: Step) -> str:
        return click.style(str(step), fg=COLORS[step.action])

    lines = [
        row("authority", f"{made.ca}, until {made.ca_expires:%Y-%m-%d}, {done(made.ca_step)}"),
        row("  key", str(made.ca_key)),
        row("certificate", f"{made.cert}, until {made.expires:%Y-%m-%d}, {done(made.step)}"),
        row("  key", str(made.key)),
        row("names", ", ".join(made.names)),
    ]
    lines += [row("note", click.style(note, fg="yellow")) for note in made.notes]
    new = {
        Action.CREATED: "Trust the authority once",
        Action.REISSUED: "Trust the new authority, and forget the old one",
        Action.REUSED: "If the authority is not trusted here yet",
    }[made.ca_step.action]
    lines += ["", click.style(f"{new}:", bold=True)]
    for instruction in trust_instructions(made.ca):
        where, _, command = instruction.partition(": ")
        lines.append(f"  {click.style(where, dim=True)}: {command}")
    return lines
