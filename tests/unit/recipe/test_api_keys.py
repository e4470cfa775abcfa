"""The API keys file: what it may say, where it is wrong, and that no key is ever shown."""

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton.base.errors import ConfigError
from baton.recipe.api_keys import ApiKey, ApiKeysFile, key_sha256, load_api_keys

SECRET = "sk-0123456789abcdef"
HASH = sha256(SECRET.encode()).hexdigest()
OTHER = sha256(b"other").hexdigest()


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    return path


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_api_keys(written(tmp_path, text))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return str(caught.value)


def test_a_key_is_found_by_the_hash_of_what_a_client_sends(tmp_path: Path) -> None:
    text = f"""\
keys:
  - name: team-a
    sha256: "{HASH}"
    priority: interactive
    requests_per_s: 10
    requests_burst: 20
    tokens_per_s: 20000.5
    tokens_burst: 100000
    ttft_deadline_s: 5
  - {{name: team-b, sha256: "{OTHER}"}}
"""
    found = load_api_keys(written(tmp_path, text)).by_sha256()
    assert found[key_sha256(SECRET)] == ApiKey(
        name="team-a",
        sha256=HASH,
        priority="interactive",
        requests_per_s=10,
        requests_burst=20,
        tokens_per_s=20000.5,
        tokens_burst=100000,
        ttft_deadline_s=5,
    )
    plain = found[key_sha256("other")]
    assert (plain.priority, plain.requests_per_s, plain.tokens_per_s) == ("standard", None, None)
    assert key_sha256(HASH) not in found, "the hash is not a key"
    assert key_sha256("") not in found


@given(st.text())
def test_whatever_a_client_sends_can_be_looked_up(text: str) -> None:
    assert len(key_sha256(text)) == 64


def test_half_a_surrogate_pair_in_a_header_can_be_looked_up() -> None:
    assert len(key_sha256("\udc80")) == 64


@pytest.mark.parametrize(
    ("field", "wrong", "told"),
    [
        ("priority", "urgent", "'interactive', 'standard' or 'batch'"),
        ("requests_per_s", "0", "greater than 0"),
        ("tokens_per_s", ".inf", "finite"),
        ("ttft_deadline_s", "-1", "greater than 0"),
        ("requests_burst", "5", "give requests_per_s too"),
        ("tokens_burst", "5", "give tokens_per_s too"),
        ("tokens_per_sec", "5", "did you mean 'tokens_per_s'"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(tmp_path: Path, field: str, wrong: str, told: str) -> None:
    message = refused(tmp_path, f'keys:\n  - name: a\n    sha256: "{HASH}"\n    {field}: {wrong}\n')
    assert f"keys.yaml:4:5: keys.0.{field}: " in message
    assert told in message


def test_a_burst_below_one_request_is_refused(tmp_path: Path) -> None:
    text = f'keys:\n  - name: a\n    sha256: "{HASH}"\n    requests_per_s: 0.1\n    requests_burst: 0.5\n'
    assert "keys.yaml:5:5: keys.0.requests_burst: got 0.5" in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (f"keys:\n  - name: a\n    sha256: {SECRET}\n", "keys.yaml:3:5: keys.0.sha256: expected"),
        ("keys:\n  - name: a\n    sha256: 123456789\n", "keys.yaml:3:5: keys.0.sha256: expected"),
        (f"keys:\n  - {SECRET}\n", "keys.yaml:2:5: keys.0: expected"),
        (f"keys: {SECRET}\n", "keys.yaml:1:1: keys: expected"),
        (f'keys:\n  - name: a\n    sha256: "{HASH.upper()}"\n', "keys.yaml:3:5: keys.0.sha256: expected"),
    ],
)
def test_what_may_be_a_key_is_not_shown_but_its_line_is(tmp_path: Path, text: str, where: str) -> None:
    message = refused(tmp_path, text)
    assert where in message
    assert "sha256sum" in message
    assert not any(secret in message for secret in (SECRET, "123456789", HASH.upper()))


def test_a_fault_beside_one_that_is_not_shown_is_still_told(tmp_path: Path) -> None:
    message = refused(tmp_path, f"keys:\n  - name: a\n    sha256: {SECRET}\n    priority: urgent\n")
    assert len(message.splitlines()) == 2
    assert "keys.yaml:4:5: keys.0.priority: got 'urgent'" in message


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (f'{{name: a, sha256: "{OTHER}"}}', "names must be unique; more than once: a"),
        (f'{{name: b, sha256: "{HASH}"}}', "the same hash: a, b"),
    ],
)
def test_a_name_or_a_key_twice_is_refused(tmp_path: Path, second: str, told: str) -> None:
    message = refused(tmp_path, f'keys:\n  - {{name: a, sha256: "{HASH}"}}\n  - {second}\n')
    assert "keys.yaml:1:1: " in message
    assert told in message
    assert HASH not in message


def test_a_file_without_keys_lets_nobody_in_and_is_refused(tmp_path: Path) -> None:
    assert "keys.yaml:1:1: ApiKeysFile: keys lists none" in refused(tmp_path, "keys: []\n")
    assert "keys: missing" in refused(tmp_path, "baton: 1\n")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read it: .*ApiKeysFile"):
        load_api_keys(tmp_path / "none.yaml")


def test_the_type_shows_every_field_with_a_description() -> None:
    undescribed = [name for name, field in ApiKey.model_fields.items() if not field.description]
    assert undescribed == []
    assert set(ApiKeysFile.model_fields) == {"baton", "keys"}
