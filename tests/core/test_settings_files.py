"""Secrets by file: NAME_FILE in place of NAME."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.settings import Secret, SettingsError, load_settings
from core.settings.files import MAX_BYTES, SUFFIX, is_secret
from core.settings.kinds import names_of
from core.settings.load import Settings
from ops.process import python_environment
from tests.core.test_settings_prod import PROD

SECRETS = {
    attribute: names_of(attribute, field)
    for attribute, field in Settings.model_fields.items()
    if is_secret(field)
}


def test_no_file_of_a_secret_is_named_as_another_key() -> None:
    keys = {name for attribute, field in Settings.model_fields.items() for name in names_of(attribute, field)}
    assert not keys & {name + SUFFIX for names in SECRETS.values() for name in names}


def test_each_secret_can_stand_in_a_file_under_each_of_its_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    texts = {"redis_url": "redis://:p@h", "jwt_rs_private_pem": ""}
    texts |= {attribute: "postgresql://u:p@h/d" for attribute in SECRETS if attribute.startswith("database_")}
    for attribute, names in SECRETS.items():
        several = Settings.model_fields[attribute].annotation == tuple[Secret, ...]
        text = texts.get(attribute, "one, two\nthree" if several else "one two")
        file.write_text(f"\ufeff{text}\r\n")
        for name in names if text else ():
            with monkeypatch.context() as patch:
                patch.setenv(name + SUFFIX, str(file))
                found = getattr(load_settings(env_file=None, env="test"), attribute)
                assert found == (("one", "two", "three") if several else text), name


def test_a_file_that_holds_no_secret_is_refused_with_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cases = {
        "absent": (None, "No such file"),
        "empty": (b" \n", "it is empty"),
        "long": (b"x" * (MAX_BYTES + 1), "more than 64 KiB"),
        "binary": (b"\xff\xfe", "no text in UTF-8"),
        "nul": (b"one\0two", "control character"),
        # The reading of these would wait for ever, or never end.
        "pipe": (None, "it is a pipe and no regular file"),
        "link to a pipe": (None, "it is a pipe and no regular file"),
        "directory": (None, "it is a directory and no regular file"),
        "device": (None, "it is a device and no regular file"),
    }
    made: dict[str, Callable[[Path], None]] = {
        "pipe": os.mkfifo,
        "link to a pipe": lambda path: path.symlink_to(tmp_path / "pipe"),
        "directory": Path.mkdir,
        "device": lambda path: path.symlink_to("/dev/zero"),
    }
    for name, (data, reason) in cases.items():
        path = tmp_path / name
        if name in made:
            made[name](path)
        elif data is not None:
            path.write_bytes(data)
        monkeypatch.setenv("ADMIN_TOKEN_FILE", str(path))
        with pytest.raises(SettingsError) as caught:
            load_settings(
                env_file=None, **{key: value for key, value in PROD.items() if key != "admin_token"}
            )
        # One line: the rule of prod, which misses the token, would only repeat it.
        (problem,) = caught.value.problems
        assert problem.startswith(f"ADMIN_TOKEN_FILE={path} cannot be used: "), problem
        assert reason in problem


def test_a_single_secret_of_two_lines_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    for name, text in (
        ("DATABASE_URL", "postgresql://u:s3cret@h/d\r\n# the old one\r\n"),
        ("STRIPE_SECRET_KEY", "sk_s3cret\nsk_old"),
    ):
        file.write_bytes(text.encode())
        with monkeypatch.context() as patch:
            patch.setenv(name + SUFFIX, str(file))
            with pytest.raises(SettingsError, match="line break") as caught:
                load_settings(env_file=None, env="test")
            assert "s3cret" not in str(caught.value)


def test_a_secret_and_its_file_exclude_each_other_within_one_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, env_file = tmp_path / "secret", tmp_path / ".env"
    file.write_text("from-the-file")
    monkeypatch.setenv("INTERNAL_API_SECRET_FILE", str(file))
    env_file.write_text("INTERNAL_API_SECRET=from-dot-env\n")
    # The environment wins over .env, as for every other key.
    assert load_settings(env_file=env_file).internal_api_secret == (Secret("from-the-file"),)
    monkeypatch.setenv("INTERNAL_API_SECRET", "both-are-set")
    with pytest.raises(SettingsError) as caught:
        load_settings(env_file=env_file)
    assert "INTERNAL_API_SECRET and INTERNAL_API_SECRET_FILE are both set" in str(caught.value)
    assert "both-are-set" not in str(caught.value)


def test_a_value_handed_to_a_child_replaces_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", "/run/secrets/database_url")
    monkeypatch.setenv("ADMIN_TOKEN_FILE", "/run/secrets/admin_token")
    given = python_environment(DATABASE_URL="postgresql://h/d")
    assert "DATABASE_URL_FILE" not in given
    assert given["ADMIN_TOKEN_FILE"] == "/run/secrets/admin_token"
