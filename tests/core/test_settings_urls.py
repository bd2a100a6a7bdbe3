"""DATABASE_URL and REDIS_URL: what is taken, and what a slip of the pen is answered."""

import pytest

from core.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("redis_url", "redis:/:hunter2@h", "REDIS_URL=redis:***@h: expected Redis or Valkey, as redis://"),
        ("redis_url", "redis://:hunter2@", "REDIS_URL=redis://:***@: expected Redis"),
        ("redis_url", "redis://h:port/0", "REDIS_URL=redis://h:port/0: expected Redis"),
        ("redis_url", "redis://h:70000/0", "REDIS_URL=redis://h:70000/0: expected Redis"),
        (
            "database_url",
            "postgresql://h:54x2/x",
            "DATABASE_URL=postgresql://h:54x2/x: expected PostgreSQL, as",
        ),
        (
            "database_url",
            "postgresql://u:hunter2@a,b:65536/x",
            "DATABASE_URL=postgresql://u:***@a,b:65536/x: ",
        ),
        (
            "database_url",
            "host=db password=hunter2 user=u",
            "DATABASE_URL=host=db password=*** user=u: expected",
        ),
        ("database_replica_url", "Password = 'a hunter2'", "DATABASE_REPLICA_URL=Password = ***: expected"),
        ("database_url", "postgresql:/u:hunter2@h/x", "DATABASE_URL=postgresql:***@h/x: expected PostgreSQL"),
    ],
)
def test_a_slip_of_the_pen_is_named_without_its_password(attribute: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(env_file=None, **{attribute: value})
    (problem,) = caught.value.problems
    assert problem.startswith(expected)
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@db/books",
        "postgresql://u:p%40@a:5432,[::1]:5433,c/books?sslmode=require",
        "postgresql:///books?host=/run/postgresql",
        "postgresql://%2Frun%2Fpostgresql/books",
    ],
)
def test_every_form_of_a_database_url_is_taken(url: str) -> None:
    assert load_settings(env_file=None, database_url=url).database_url == url


@pytest.mark.parametrize(
    "url", ["redis://:p@h:6379/0", "rediss://u:p@h", "redis://[::1]:6379", "unix:///run/redis.sock"]
)
def test_every_form_of_a_redis_url_is_taken(url: str) -> None:
    assert load_settings(env_file=None, redis_url=url).redis_url == url
