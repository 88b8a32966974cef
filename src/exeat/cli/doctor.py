"""``exeat doctor``: what is wrong or will be, and what to do about it."""

from dataclasses import asdict

import typer

from exeat.cli.desk import HomeOption, JsonOption, printable, say, show_json


def doctor(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Examine home, ledger, keys, policy, agents and servers.  Changes nothing; exit 1 on a problem."""
    from exeat.app.doctor.check import Status
    from exeat.app.doctor.examine import examine
    from exeat.app.home import home_path

    found = []
    for each in examine(home_path(home)):
        found.append(each)
        if not as_json:
            say(f"{each.status.value:8} {printable(each.id)}: {each.says}")
            if each.remedy:
                say(f"{'':8}   → {each.remedy}")
    count = {status: sum(each.status is status for each in found) for status in Status}
    if as_json:
        show_json([asdict(each) for each in found])
    else:
        say(
            f"\n{count[Status.PROBLEM]} problems, {count[Status.WARN]} warnings, "
            f"{count[Status.OK]} well, {count[Status.SKIPPED]} skipped."
        )
    if count[Status.PROBLEM]:
        raise typer.Exit(1)
