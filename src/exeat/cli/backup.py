"""``exeat backup`` and ``exeat restore``: a home in one file, and back."""

from pathlib import Path
from typing import Annotated

import typer

from exeat.cli.desk import HomeOption, database_url, next_step, printable, say
from exeat.core.errors import Invalid


def backup(
    target: Annotated[str, typer.Argument(help="The file to write, or a folder for it.")],
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Also the private keys: treat the file as a key.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Write state and ledger into one file; the gateway may go on running."""
    from exeat.app.backup.dump import dump_command
    from exeat.app.backup.make import backup as make
    from exeat.app.home import home_path

    to = Path(target).absolute()
    if target.endswith("/") and not to.is_dir():
        raise Invalid(f"There is no folder {target}", remedy="Make it first, or name a file.")
    where = home_path(home)
    url = database_url(where)
    made = make(where, to, with_keys=with_keys, database_url=url)
    for name, ledger in made.manifest.ledgers.items():
        say(f"ledger {name}: {ledger.entries} entries, verified")
    say(f"{len(made.manifest.files)} files in {made.path}, mode 0600.")
    if url is not None:
        _note("state and record are in PostgreSQL and not in this file.  Now, after it, run")
        say(f"  {dump_command(url, made.path)}")
    if made.unsigned:
        _note(f"not signed for {', '.join(made.unsigned)}: the signing key is not here")
    if made.left_out:
        _note(f"left out: {printable(', '.join(made.left_out))}")
    if with_keys:
        _note(
            "it holds private keys: whoever reads it can sign as this gateway and open its values"
        )
    else:
        _note(
            f"no keys are in it; keep {where / 'keys'} apart: sealed values need master.key, "
            "secrets of servers vault.key"
        )
    if elsewhere := _key_elsewhere(where):
        _note(f"the vault's key is never in it: keep {elsewhere} as well")
    next_step(
        f"exeat restore {made.path} --home NEW   (try it; a backup is proved by restoring it)"
    )


def _key_elsewhere(home: Path) -> str:
    """Where the vault's key is, if not in the home."""
    from exeat.app.settings import load_settings

    settings = load_settings(home)
    if settings.vault_key_command:
        return f"what {settings.vault_key_command[0]} prints"
    return f"the variable {settings.vault_key_env}" if settings.vault_key_env else ""


def restore(
    archive: Annotated[Path, typer.Argument(help="A file that `exeat backup` wrote.")],
    home: HomeOption = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint that was kept elsewhere; repeatable.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="The gateway's key as its owner told you (name+id+base64).")
    ] = None,
    accept_unsigned: Annotated[
        bool, typer.Option("--accept-unsigned", help="Take a backup whose manifest nobody signed.")
    ] = False,
) -> None:
    """Check a backup whole, then put it in place as a new home."""
    from exeat.app.backup.restore import restore as put_back
    from exeat.app.home import home_path
    from exeat.evidence.note import Verifier

    try:
        held = [path.read_bytes() for path in checkpoint or ()]
    except OSError as error:
        raise Invalid(f"The checkpoint cannot be read: {error.strerror}.") from None
    where = home_path(home)
    done = put_back(
        archive,
        where,
        key=Verifier.parse(key) if key else None,
        held=held,
        accept_unsigned=accept_unsigned,
    )
    for name, ledger in done.manifest.ledgers.items():
        say(f"ledger {name}: {ledger.entries} entries, verified")
    say(f"Home: {where}, as it was at {done.manifest.made_at}.")
    if not done.manifest.keys:
        _note(f"put the private keys back into {where / 'keys'} before you start (mode 0600)")
    if done.manifest.state == "postgresql":
        _note(
            "state and record are not in this backup: put the database back, too "
            "(pg_restore --no-owner --dbname=ADDRESS FILE.dump), and set EXEAT_DATABASE_URL"
        )
    for name in done.unconfirmed:
        _note(f"nobody checked that {name} signed this file: its log is not in it; name its --key")
    _how_to_go_on(bool(done.manifest.ledgers or done.unconfirmed), done.newer, where)


def _how_to_go_on(written: bool, newer: dict[str, int], where: Path) -> None:
    for name, size in newer.items():
        _note(
            f"{name} signed a checkpoint of {size} entries after this backup: it must not go on "
            "under that name, or two different records would bear one signature"
        )
    if newer:
        next_step(f"exeat up --home {where}   with a new name: EXEAT_INSTANCE=gw2 (any unused one)")
    elif written:
        next_step(
            f"exeat up --home {where}   If the old gateway went on after this backup, take a new "
            "name: EXEAT_INSTANCE=gw2"
        )
    else:
        next_step(f"exeat up --home {where}")


def _note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)
