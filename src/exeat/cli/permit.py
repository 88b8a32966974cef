"""``exeat permit``: what tool servers need to check the permits of this gateway (ID-11)."""

import typer

from exeat.cli.desk import HomeOption, open_desk, show_json

app = typer.Typer(
    help="Signed permits for tool servers that demand them.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def permit() -> None:
    """Signed permits for tool servers that demand them."""


@app.command()
def keys(home: HomeOption = None) -> None:
    """The public keys as a JWK Set: put it into a file beside the tool server."""
    from exeat.app.permits import permit_signer

    show_json({"keys": [permit_signer(open_desk(home).home).public()]})
