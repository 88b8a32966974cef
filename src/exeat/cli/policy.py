"""``exeat policy``: check, test, show and explain policies (POL-5, POL-6)."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from exeat.cli import policy_apply as _apply
from exeat.cli import policy_diff as _diff
from exeat.cli import policy_library as _library
from exeat.cli import policy_replay as _replay
from exeat.cli import policy_suggest as _suggest
from exeat.cli.desk import open_desk, open_home
from exeat.cli.policy_files import policy_files, text_of
from exeat.core.errors import ExeatError, Invalid, NotFound
from exeat.core.facts import PolicyVersionFacts, Snapshot
from exeat.core.ids import Digest, PersonId
from exeat.policy.bundle import compile_bundle
from exeat.policy.cases import Case, CaseResult, load_cases, request_of, run
from exeat.policy.catalogue import load_catalogue
from exeat.policy.decide import Pdp
from exeat.policy.explain import Explanation, explain
from exeat.policy.lint import lint
from exeat.policy.world import Catalogue

EXIT_FINDINGS: Final = 1
EXIT_USAGE: Final = 2

app = typer.Typer(
    name="policy",
    help="Check, test and explain policies.",
    no_args_is_help=True,
    add_completion=False,
)

Directory = Annotated[Path, typer.Argument(help="Directory with *.cedar (and cases/*.yaml).")]
Home = Annotated[Path | None, typer.Option(help="exeat's home; else EXEAT_HOME, else ~/.exeat.")]
CatalogueFile = Annotated[
    Path | None,
    typer.Option(help="YAML or JSON with servers, tools, agents; for CI without a home."),
]


@app.command("lint")
def lint_command(directory: Directory, home: Home = None, catalogue: CatalogueFile = None) -> None:
    """Name everything that is wrong with the policy files, by file and line."""
    with _plain_errors():
        files = policy_files(directory)
        findings = lint(files, _catalogue(home, catalogue))
        for finding in findings:
            typer.echo(str(finding))
        if findings:
            typer.echo(f"{len(findings)} findings.", err=True)
            raise typer.Exit(EXIT_FINDINGS)
        typer.echo(f"{len(files)} file{'' if len(files) == 1 else 's'}, no findings.")


@app.command("test")
def test_command(directory: Directory, home: Home = None, catalogue: CatalogueFile = None) -> None:
    """Run the decision cases in DIRECTORY/cases against the policies in DIRECTORY."""
    with _plain_errors():
        known = _catalogue(home, catalogue)
        pdp = _pdp(policy_files(directory), known)
        results = [run(case, pdp, known) for case in _cases(directory)]
        for result in results:
            _show_result(result)
        failed = sum(1 for result in results if result.differences)
        typer.echo(f"{len(results)} cases, {failed} failed.")
        if failed:
            raise typer.Exit(EXIT_FINDINGS)


@app.command("explain")
def explain_command(
    decision: Annotated[str, typer.Argument(help="Index of a recorded decision.")] = "",
    case: Annotated[str, typer.Option(help="Description of a case instead.")] = "",
    directory: Annotated[Path, typer.Option(help="Directory of policies for --case.")] = Path("."),
    home: Home = None,
    catalogue: CatalogueFile = None,
) -> None:
    """Show why: the facts, the determining policies with file and line, the nearest permit."""
    with _plain_errors():
        if decision:
            _explain_recorded(decision, home)
            return
        known = _catalogue(home, catalogue)
        found = [each for each in _cases(directory) if each.description == case]
        if not found:
            raise Invalid(f"no case is described as {case!r}", remedy="see: exeat policy test")
        pdp = _pdp(policy_files(directory), known)
        _show(explain(pdp, request_of(found[0], known)))


def _explain_recorded(decision: str, home: Path | None) -> None:
    from exeat.app.home import home_path
    from exeat.cli.explained import recall

    state = open_desk(home).state
    recalled = recall(decision, home_path(home), state)
    leaf = recalled.leaf
    typer.echo(
        f"Recorded: {leaf.verdict}, {leaf.reason}; policies {', '.join(leaf.policies) or '-'}"
    )
    for note in recalled.notes:
        typer.echo(f"Note: {note}.")
    known = state.snapshot()
    pdp = compile_bundle(recalled.policy, known.tools, known.servers, people=known.people)
    _show(explain(pdp, recalled.request))


@app.command("show")
def show_command(home: Home = None) -> None:
    """Show the policy version in force: who wrote it, who approved it, why, and its text."""
    with _plain_errors():
        policy = _snapshot(home).policy
        if policy is None:
            typer.echo("No policy is in force: everything is denied.")
            raise typer.Exit(0)
        typer.echo(f"version  {policy.number}\ndigest   {policy.digest}")
        typer.echo(
            f"author   {policy.author}\napprover {policy.approver}\nreason   {policy.reason}"
        )
        for name in sorted(policy.files):
            typer.echo(f"\n// {name}\n{policy.files[name].rstrip()}")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Errors as a sentence and a next step, never as a stack trace."""
    try:
        yield
    except ExeatError as error:
        typer.echo(f"{str(error).rstrip('.')}.", err=True)
        if error.remedy:
            typer.echo(f"Next: {error.remedy.rstrip('.')}.", err=True)
        raise typer.Exit(EXIT_USAGE) from None


def _cases(directory: Path) -> list[Case]:
    paths = sorted((directory / "cases").glob("*.yaml"))
    if not paths:
        raise Invalid(
            f"{directory / 'cases'} holds no *.yaml file",
            remedy="write a case first: docs/reference/policy.md shows one",
        )
    return [case for path in paths for case in load_cases(path.name, text_of(path))]


def _catalogue(home: Path | None, file: Path | None) -> Catalogue:
    if file is not None:
        return load_catalogue(text_of(file), file.name)
    state = _snapshot(home)
    return Catalogue(state.tools, state.servers, state.agents, state.people)


def _snapshot(home: Path | None) -> Snapshot:
    from exeat.app.home import home_path

    try:
        return open_home(home_path(home)).snapshot()
    except NotFound as error:
        raise NotFound(str(error), remedy="Name one with --home, or use --catalogue.") from None


def _pdp(files: dict[str, str], known: Catalogue) -> Pdp:
    """A PDP over files that are not in force.  Raises Invalid on the first finding."""
    nobody = PersonId("")
    version = PolicyVersionFacts(Digest("candidate"), 0, nobody, nobody, "candidate", files)
    pdp = compile_bundle(
        version, known.tools, known.servers, agents=known.agents, people=known.people
    )
    if pdp.findings:
        raise Invalid(str(pdp.findings[0]), remedy="run: exeat policy lint")
    return pdp


def _show_result(result: CaseResult) -> None:
    mark = "FAIL" if result.differences else "ok  "
    typer.echo(f"{mark} {result.case.file}: {result.case.description}")
    for difference in result.differences:
        typer.echo(f"     {difference}")


def _show(found: Explanation) -> None:
    decision = found.decision
    typer.echo(f"verdict  {decision.verdict.value} ({decision.reason.value})")
    if decision.detail:
        typer.echo(f"detail   {decision.detail}")
    for way in decision.hold:
        typer.echo(f"waits for {' and '.join(way)}")
    if decision.narrowed is not None:
        typer.echo(f"leaves as {_arguments(decision.narrowed)}")
    if decision.obligations:
        typer.echo(f"obliges  {', '.join(decision.obligations)}")
    typer.echo(f"facts    {_pretty(found.context)}")
    for vote in found.considered:
        role = "decided" if vote.determining else "did not match" if vote.failed else "matched"
        typer.echo(f"policy   {vote.policy.id} ({vote.place}) {role}")
    if found.nearest is not None:
        typer.echo(f"nearest permit  {found.nearest.policy.id} ({found.nearest.place})")
        for condition in found.nearest.failed:
            typer.echo(f"  does not hold: {condition}")


def _arguments(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _pretty(context: str) -> str:
    try:
        return json.dumps(json.loads(context), indent=2, ensure_ascii=False)
    except ValueError:
        return context


app.command("apply")(_apply.apply)
app.command("propose")(_apply.propose)
app.command("proposals")(_apply.proposals)
app.command("approve")(_apply.approve)
app.command("withdraw")(_apply.withdraw)
app.command("versions")(_apply.versions)
app.command("rollback")(_apply.rollback)
app.command("replay")(_replay.replay)
app.command("shadow-report")(_replay.shadow_report)
app.command("diff")(_diff.diff)
app.command("suggest")(_suggest.suggest)
app.add_typer(_library.app, name="library")
