from dataclasses import fields
from pathlib import Path

import pytest

from hbm_core.errors import InputError
from hbm_core.store.settings import Settings, default_store, options


def test_every_field_is_one_documented_variable():
    rows = options()
    assert {row.field for row in rows} == {field.name for field in fields(Settings)}
    assert len({row.variable for row in rows}) == len(rows)
    assert all(row.variable.startswith("HBM_") and row.words and row.default for row in rows)


def test_environment_is_read_and_written_back(tmp_path):
    settings = Settings.from_environment(
        {"HBM_STORE": str(tmp_path), "HBM_WORKERS": "3", "HBM_FIT_SECONDS": "2.5", "HBM_QUEUE": ""}
    )
    assert (settings.store, settings.workers, settings.fit_seconds, settings.queue) == (tmp_path, 3, 2.5, 200)
    assert Settings.from_environment(settings.environment()) == settings


def test_given_fields_come_before_the_environment(tmp_path):
    assert Settings.from_environment({"HBM_WORKERS": "3"}, workers=1, store=tmp_path) == Settings(
        tmp_path, workers=1
    )
    assert Settings.from_environment({"HBM_WORKERS": "3"}, workers=None).workers == 3


@pytest.mark.parametrize("value", ["many", "-1", "nan", "inf", "1.5"])
def test_bad_numbers_name_the_variable(value):
    with pytest.raises(InputError, match="HBM_WORKERS"):
        Settings.from_environment({"HBM_WORKERS": value})


def test_default_folder_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_store() == tmp_path / "partial-pooling-explorer"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_store() == Path(tmp_path) / ".local/share/partial-pooling-explorer"


def test_hosts_are_names_separated_by_commas():
    given = {"HBM_ALLOWED_HOSTS": " app.example.com,*.example.org , [::1],"}
    assert Settings.from_environment(given).hosts == ("app.example.com", "*.example.org", "[::1]")
    assert Settings.from_environment({}).hosts == ()
    for bad in ("https://app.example.com", "app.example.com/", "a b", "a;b", "*.*", "app:80"):
        with pytest.raises(InputError, match="HBM_ALLOWED_HOSTS"):
            Settings.from_environment({"HBM_ALLOWED_HOSTS": bad})
