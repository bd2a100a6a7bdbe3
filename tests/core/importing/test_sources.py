"""Addresses of sources: as the old services write them, and never repeated where one is wrong."""

import pytest

from core.errors import Refusal
from core.importing.sources import _of_go, open_source


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("u:p@ss/w@tcp(db:3307)/payments?parseTime=true", "mysql://u:p%40ss%2Fw@db:3307/payments"),
        ("u@tcp(db)/payments", "mysql://u:@db/payments"),
        ("mysql://u:p@db/payments", "mysql://u:p@db/payments"),
    ],
)
def test_an_address_of_the_orchestration_is_understood(written: str, url: str) -> None:
    assert _of_go(written) == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2/x@127.0.0.1:1/db", "mysql://u:hunter2/x@127.0.0.1:1/db", "mysql://u:hunter2@127.0.0.1:1/db",
        "u:hunter2@tcp(127.0.0.1:1)/db", "mongodb://u:hunter2@h/db", "hunter2",
    ],
)  # fmt: skip
async def test_a_wrong_address_is_not_repeated(url: str) -> None:
    with pytest.raises(Refusal) as refused:
        async with open_source(url):
            pass
    assert refused.value.code == "source_unreachable"
    assert "hunter2" not in str(refused.value)
