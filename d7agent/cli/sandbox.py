"""`d7agent sandbox`: the embedded D7."""

from typing import Final

import click

from d7agent.cli import output

EPILOG: Final = """\b
A fault SPEC is NAME or NAME:OPTION=VALUE,OPTION=VALUE… or a JSON object with "name". Every fault takes
  on=login|api|both   which requests it meets (default login)
  times=N             for the next N of them (default: until it is removed)
Faults wait in a queue; one request meets the first that fits. --list-faults shows them all.
\b
While it runs:
  POST   /sandbox/faults   {"spec": "rate-limited:after=3,times=2"}
  GET    /sandbox/faults   those set and those known;  DELETE removes all
  GET    /sandbox/stats    what was asked so far;  DELETE sets it to nil
  POST   /sandbox/revoke   nothing: all tokens so far;  {"token": "…"}: one
  POST   /sandbox/config   {"lifetime": 3}, also no_exp, no_iat, same_token, token_form, applications, ready_token
"""


@click.command(epilog=EPILOG)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 (default) takes a free one.")
@click.option("--lifetime", type=float, default=3600.0, show_default=True, help="Seconds that a token lives.")
@click.option("--no-exp", is_flag=True, help="Tokens without `exp`: they do not expire.")
@click.option("--no-iat", is_flag=True, help="Tokens without `iat`.")
@click.option("--same-token", is_flag=True, help="The same bytes at every login until they expire.")
@click.option("--token-form", type=click.Choice(["jwt", "two-part", "opaque"]), default="jwt", show_default=True,
              help="A signed JWT, one without signature, or no JWT (does not expire).")  # fmt: skip
@click.option("--tls", is_flag=True, help="HTTPS with a CA of its own, made by openssl.")
@click.option("--tls-dir", type=click.Path(file_okay=False), metavar="DIR",
              help="Where CA and certificate go; a CA there is used again. Default: a temporary folder.")  # fmt: skip
@click.option("--certificate", type=click.Choice(["good", "wrong-host", "expired"]), default="good", show_default=True,
              help="With --tls: what is wrong with the certificate.")  # fmt: skip
@click.option("--fault", "faults", multiple=True, metavar="SPEC", help="Answer wrongly on purpose; may be repeated.")
@click.option("--list-faults", is_flag=True, help="Show the faults and leave.")
def sandbox(list_faults: bool, faults: tuple[str, ...], **options: object) -> None:
    """Serve an embedded D7 on 127.0.0.1: login, balance and send, with faults on demand.

    The first line on stdout is its URL, once it serves; then client id, client secret, a ready-made token and the CA.
    Each login is logged to stderr. Ctrl-C or SIGTERM ends it. Nothing leaves this machine.
    """
    from d7agent.sandbox import BadSetting, SandboxError, Settings, run, table

    if list_faults:
        output.out(f"{table()}\n")
        return
    if not options["tls"] and (options["tls_dir"] or options["certificate"] != "good"):
        raise click.UsageError("--tls-dir and --certificate need --tls")
    try:
        settings = Settings(faults=faults, **options)  # type: ignore[arg-type]
        run(settings, lambda text: output.out(f"{text}\n"), output.complain)
    except SandboxError as error:
        raise output.Failure(error.message, error.hint, 2 if isinstance(error, BadSetting) else 1) from None
