"""The rules and places of backups, without a database: names, retention, a folder, and a bucket that speaks S3."""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from core.ledger.history import Picture
from ops.backups import manifest as manifests
from ops.backups import places
from ops.backups.keeping import Keep, kept
from ops.backups.manifest import Manifest, check_dump
from ops.backups.places import Bucket, Folder, Place, place_of, split_source
from ops.backups.taking import prune
from ops.backups.tools import Address, find_tool
from ops.process import StartError
from ops.reach import reaching_database
from tests.ops.backups import bucket as stub

DAY = datetime(2026, 3, 1, 3, tzinfo=UTC)
times = st.lists(
    st.integers(0, 24 * 90).map(lambda hours: DAY + timedelta(hours=hours)), unique=True, max_size=25
)
keeps = st.builds(Keep, *[st.integers(0, 6)] * 4)


@settings(max_examples=25, deadline=None)
@given(times, keeps)
def test_what_is_kept(taken: list[datetime], keep: Keep) -> None:
    staying = kept(taken, keep)
    assert staying <= set(taken)
    if not any(keep):
        assert staying == set(taken)
        return
    assert set(sorted(taken)[-max(keep.last, 1) :]) <= staying  # the newest stays, whatever is asked
    assert len(staying) <= max(keep.last, 1) + keep.daily + keep.weekly + keep.monthly
    days = {time.date() for time in taken}
    for day in sorted(days)[-keep.daily :] if keep.daily else ():
        assert max(time for time in taken if time.date() == day) in staying
    # A second run removes nothing more: to prune twice is to prune once.
    assert kept(staying, keep) == staying


def test_a_calendar_of_backups() -> None:
    taken = [datetime.combine(date(2026, 1, 1) + timedelta(day), DAY.timetz()) for day in range(120)]
    staying = kept(taken, Keep(daily=3, weekly=2, monthly=2))
    assert sorted(f"{time:%m-%d}" for time in staying) == ["03-31", "04-26", "04-28", "04-29", "04-30"]


def made(taken_at: datetime, dump: bytes, database: str = "books", *epochs: str) -> Manifest:
    return Manifest(
        name=manifests.name_of(database, taken_at),
        database=database,
        taken_at=taken_at,
        seconds=1,
        version="1",
        server_major=18,
        migrations={},
        roles=[],
        lineage=[{"epoch": epoch} for epoch in ("first", *epochs)],
        picture=Picture(position=1, digest="", rows={}, balances={}),
        bytes=len(dump),
        sha256=hashlib.sha256(dump).hexdigest(),
    )


def keep_in(
    place: Place, folder: Path, taken_at: datetime, dump: bytes, database: str = "books", *epochs: str
) -> str:
    part, told = folder / f"{next(_parts)}.part", made(taken_at, dump, database, *epochs)
    part.write_bytes(dump)
    place.keep(part, told, lambda _done, _total: None)
    assert not part.exists()
    return told.name


_parts = itertools.count(1)


def test_only_whole_backups_of_the_same_database_are_removed(tmp_path: Path) -> None:
    place = Folder(tmp_path)
    names = [keep_in(place, tmp_path, DAY + timedelta(days=day), b"x" * 10) for day in range(5)]
    other = keep_in(place, tmp_path, DAY, b"y", database="others")
    (tmp_path / f"{names[4]}.dump").write_bytes(b"x")  # the newest is damaged, so it does not count as one
    (tmp_path / f"{names[0]}.json").write_text("{")
    told = made(DAY, b"", "books", "restored")
    # A stage may have the name of production: a backup with an epoch that the database never had is another one's.
    stage = keep_in(place, tmp_path, DAY + timedelta(hours=1), b"z", "books", "of a stage")
    assert prune(place, told, Keep(last=1)) == names[1:3]
    assert place.names() == sorted([names[0], names[3], names[4], other, stage])
    assert prune(place, told, Keep()) == []


def test_a_backup_is_never_removed_by_its_own_run(tmp_path: Path) -> None:
    place = Folder(tmp_path)
    ahead = keep_in(place, tmp_path, DAY + timedelta(days=400), b"x")  # the clock was wrong that day
    fresh = keep_in(place, tmp_path, DAY, b"x")
    assert prune(place, place.manifest(fresh), Keep(last=1)) == []
    assert place.names() == sorted([ahead, fresh])


@pytest.fixture
async def bucket(monkeypatch: pytest.MonkeyPatch, authorities: None) -> AsyncIterator[stub.Bucket]:
    served = stub.Bucket()
    async with TestServer(served.app()) as server:
        for name, value in {
            "AWS_ACCESS_KEY_ID": stub.KEY_ID,
            "AWS_SECRET_ACCESS_KEY": stub.SECRET,
            "AWS_REGION": stub.REGION,
            "AWS_ENDPOINT_URL": str(server.make_url("/")).rstrip("/"),
            "AWS_ALLOW_HTTP": "true",
        }.items():
            monkeypatch.setenv(name, value)
        yield served


async def test_a_bucket(bucket: stub.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "PART_BYTES", 1000)
    dump = bytes(range(256)) * 20
    (tmp_path / "dump").write_bytes(dump)
    told = made(DAY, dump)

    def work() -> None:
        place = place_of(f"s3://{stub.NAME}/tally/stick/")
        assert (place.title, place.names()) == (f"s3://{stub.NAME}/tally/stick", [])
        moved: list[int] = []
        place.keep(tmp_path / "dump", told, lambda done, _total: moved.append(done))
        assert moved[-1] == len(dump)
        assert (place.names(), place.size(told.name)) == ([told.name], len(dump))
        assert place.manifest(told.name) == told
        with place.fetched(told.name, tmp_path / "staging", lambda _done, _total: None) as path:
            check_dump(told, path)
        assert list((tmp_path / "staging").iterdir()) == []
        place.remove(told.name)
        assert (place.names(), place.size(told.name)) == ([], None)
        with pytest.raises(StartError, match="There is no backup"):
            place.manifest(told.name)

    await asyncio.to_thread(work)
    assert bucket.uploads == 1
    assert bucket.objects == {}


async def test_an_upload_that_is_broken_off_is_no_backup(
    bucket: stub.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "PART_BYTES", 1000)
    bucket.fails_after_parts = 2
    (tmp_path / "dump").write_bytes(bytes(5000))

    def work(secret: str) -> str:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        with pytest.raises(StartError) as failed:
            place_of(f"s3://{stub.NAME}").keep(
                tmp_path / "dump", made(DAY, bytes(5000)), lambda _done, _total: None
            )
        return str(failed.value)

    for secret in (stub.SECRET, "another"):
        said = await asyncio.to_thread(work, secret)
        assert said.startswith(f"s3://{stub.NAME} cannot be used: ")
        assert "secret" not in said
    assert (bucket.uploads, bucket.parts, bucket.objects) == (1, {}, {})
    assert (tmp_path / "dump").exists()


@pytest.mark.usefixtures("authorities")
def test_places_and_names() -> None:
    for text, place, name in (
        ("/b/books-20260131T030000Z.dump", "/b", "books-20260131T030000Z"),
        ("/books-20260131T030000Z.json", "/", "books-20260131T030000Z"),
        ("./x", str(Path.cwd()), "x"),
    ):
        found = split_source(text)
        assert (found[0].title, found[1]) == (place, name)
    for wrong in ("gs://bucket/x", "s3:///x/y"):
        with pytest.raises(StartError):
            split_source(wrong)
    assert isinstance(place_of("s3://b/c"), Bucket)
    for told in ("s3://key:hunter2@b/c", "s3://hunter2@b", "ftp://u:hunter2@h/x"):
        with pytest.raises(StartError) as refused:
            place_of(told)
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown", "password"),
    [
        ("postgresql://u:p%40s@h:1,g:2/d?sslmode=require", "postgresql://u@h:1,g:2/d?sslmode=require", "p@s"),
        ("postgresql://h/d?user=u&password=p%26", "postgresql://h/d?user=u", "p&"),
        ("postgresql://u@h/d", "postgresql://u@h/d", ""),
    ],
)
def test_no_command_line_has_a_password(url: str, shown: str, password: str) -> None:
    assert Address.of(url) == (shown, password)


@pytest.mark.parametrize(
    "error", [FileExistsError(17, "File exists", "/backups"), OSError(28, "No space left")]
)
def test_a_place_that_takes_nothing_is_no_server_that_is_away(error: OSError) -> None:
    with pytest.raises(OSError, match=str(error.strerror)), reaching_database("postgresql://db/books"):
        raise error
    with pytest.raises(StartError, match="cannot be reached"), reaching_database("postgresql://db/books"):
        raise ConnectionRefusedError(111, "Connection refused")


def test_a_tool_that_fits_the_server_is_wanted() -> None:
    with pytest.raises(StartError, match="postgresql-client-99"):
        find_tool("pg_dump", 99)


def test_a_manifest_of_another_kind(tmp_path: Path) -> None:
    told = made(DAY, b"x")
    later: dict[str, Any] = msgspec.json.decode(manifests.encode(told)) | {"format": 2}
    for text, sentence in (
        (b"{}", "cannot be read"),
        (msgspec.json.encode(later), "has format 2"),
        (manifests.encode(made(DAY + timedelta(1), b"x")), "is that of"),
    ):
        (tmp_path / f"{told.name}.json").write_bytes(text)
        with pytest.raises(StartError, match=sentence):
            Folder(tmp_path).manifest(told.name)
