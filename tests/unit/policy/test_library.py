"""Every policy of the library is sound, keeps its cases, and each of its policies is tried (POL-5)."""

import pytest
from requirements import requirement

from exeat.core.errors import NotFound
from exeat.core.facts import PolicyVersionFacts
from exeat.core.ids import Digest, PersonId
from exeat.policy import library
from exeat.policy.bundle import compile_bundle
from exeat.policy.cases import load_cases, run
from exeat.policy.catalogue import load_catalogue
from exeat.policy.lint import lint

KNOWN = load_catalogue(library.catalogue())
WANTED = {
    "amounts", "business-hours", "destructive-held", "environments", "lethal-triangle", "paths",
    "read-only",
}  # fmt: skip


@requirement("POL-5")
def test_the_library_has_what_the_guide_promises() -> None:
    assert set(library.names()) == WANTED
    for name in WANTED:
        assert len(library.about(name)) > 40 and "Change:" in library.about(name)
    assert "PARTIAL" in library.about("lethal-triangle")
    with pytest.raises(NotFound, match="no policy 'nothing'"):
        library.files("nothing")


@requirement("POL-5", "POL-6")
@pytest.mark.parametrize("name", library.names())
def test_its_policies_are_sound_and_its_cases_hold(name: str) -> None:
    all_files = library.files(name)
    files = {file: text for file, text in all_files.items() if not file.startswith("cases/")}
    assert [str(finding) for finding in lint(files, KNOWN)] == []
    nobody = PersonId("")
    version = PolicyVersionFacts(Digest(name), 1, nobody, nobody, name, files)
    pdp = compile_bundle(version, KNOWN.tools, KNOWN.servers, people=KNOWN.people)
    results = [
        run(case, pdp, KNOWN)
        for file in all_files
        if file.startswith("cases/")
        for case in load_cases(file, all_files[file])
    ]
    assert len(results) >= 4
    assert [(r.case.description, r.differences) for r in results if r.differences] == []
    tried = {policy for result in results for policy in result.decision.policies}
    held = any(result.decision.hold for result in results)
    missing = {policy.id for policy in pdp.policies} - tried
    # a forbid that only holds names no policy in its verdict; that it holds is its case
    assert not missing or (held and all(not p.permit for p in pdp.policies if p.id in missing))
    assert {result.decision.permitted for result in results} == {True, False}
