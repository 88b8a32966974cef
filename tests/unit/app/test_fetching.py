"""GW-10: the exceptions an operator lists."""

from pathlib import Path

import pytest
from requirements import requirement

from exeat.adapters.fetch import FetchRefused
from exeat.app.fetching import LOCAL_HOSTS, make_fetcher
from exeat.app.settings import Settings
from exeat.core.errors import Invalid


@requirement("GW-10")
def test_listed_hosts_and_no_others_may_be_internal(tmp_path: Path) -> None:
    fetcher = make_fetcher(Settings(internal_hosts=frozenset({"idp.internal"})))
    fetcher.check("http://idp.internal/")
    with pytest.raises(FetchRefused):
        fetcher.check("http://localhost:9000/")
    make_fetcher(Settings(), also=LOCAL_HOSTS).check("http://localhost:9000/")


@requirement("GW-10")
def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="internal_hosts"):
        make_fetcher(Settings(internal_hosts=frozenset({"http://idp"})))
    bad = tmp_path / "bad.pem"
    for text in (None, "no certificate"):
        if text is not None:
            bad.write_text(text)
        with pytest.raises(Invalid, match="internal_ca"):
            make_fetcher(Settings(internal_ca=bad))
