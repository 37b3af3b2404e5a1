"""Patient marks: keyed, stable, and a key file that only its owner can read."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from trabecula.artifacts.patient_hashes import key_file, key_name, mark, site_key
from trabecula.errors import InputError


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv("TRABECULA_SITE_KEY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


def test_marks_are_hmacs():
    # RFC 4231, test case 2
    expected = "5bdcc146bf60754e6a042426089575c7"
    assert mark(["what do ya want for nothing?"], b"Jefe") == [expected]
    assert mark(["9", "8", "9"], b"k") == [
        hmac.new(b"k", text, hashlib.sha256).hexdigest()[:32] for text in (b"9", b"8", b"9")
    ]


def test_keys_change_marks_and_names():
    assert mark(["9000099"], b"a") != mark(["9000099"], b"b")
    assert key_name(b"a") != key_name(b"b")
    assert len(key_name(b"a")) == 8


@pytest.mark.usefixtures("home")
def test_environment_comes_first(monkeypatch):
    monkeypatch.setenv("TRABECULA_SITE_KEY", "  00ff \n")
    assert site_key() == b"00ff"
    assert not key_file().exists()


def test_a_key_is_made_once_and_private(home):
    key = site_key()
    assert key_file() == home / "config" / "trabecula" / "site.key"
    assert len(key) == 64
    assert site_key() == key
    assert stat.S_IMODE(key_file().stat().st_mode) == 0o600
    assert os.listdir(key_file().parent) == ["site.key"]


@pytest.mark.usefixtures("home")
def test_processes_that_start_together_agree():
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: site_key(), range(32)))
    assert len(set(keys)) == 1


@pytest.mark.usefixtures("home")
def test_a_key_that_another_process_made_meanwhile_stays(monkeypatch):
    token_hex = secrets.token_hex

    def slow(length):
        if length == 32 and not key_file().exists():
            key_file().write_text("the first\n")
            key_file().chmod(0o600)
        return token_hex(length)

    monkeypatch.setattr(secrets, "token_hex", slow)
    assert site_key() == b"the first"
    assert os.listdir(key_file().parent) == ["site.key"]


def test_the_default_place_is_the_users_config_folder(home, monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(home))
    assert key_file() == home / ".config" / "trabecula" / "site.key"


@pytest.mark.usefixtures("home")
def test_bad_keys(monkeypatch):
    site_key()
    key_file().chmod(0o644)
    with pytest.raises(InputError, match="other users can read the site key"):
        site_key()
    key_file().chmod(0o600)
    key_file().write_text("\n")
    with pytest.raises(InputError, match="the site key is empty"):
        site_key()
    monkeypatch.setenv("TRABECULA_SITE_KEY", " ")
    with pytest.raises(InputError, match="TRABECULA_SITE_KEY: the site key is empty"):
        site_key()


def test_every_spelling_has_the_mark_of_the_canonical_form():
    # printf p7 | openssl dgst -sha256 -hmac k; printf 7 | ...
    assert set(mark(["P7", "p7", "\uff307", "p7 "], b"k")) == {"a5565225f40da93ac6214fd20a27e896"}
    assert set(mark(["007", "7", "7.0", "\uff17"], b"k")) == {"9c737d163bcd1315bb695b00262e3ba4"}
