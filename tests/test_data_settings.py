"""The settings that make a split: typed, taken from a run's config, and none lost on the way."""

import inspect
import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from conftest import REPOSITORY

from data import CORPORA, DataSettings, open_split
from data.corpus import Corpus
from data.phantom.layouts import make_phantom

CONFIG = json.loads((REPOSITORY / "tests/fixtures/run-v1/config.json").read_text())


def test_a_config_of_the_first_version_gives_its_settings():
    settings = DataSettings.from_config(CONFIG | {"uncertain": "ignore", "limit": 7})
    assert settings == DataSettings(
        corpus="phantom", root="phantom", uncertain="ignore", image_size=32, limit=7,
        cache_dir="cache", workers=1)


@pytest.mark.parametrize("name", ["data", "uncertain", "limit", "val_fraction"])
def test_a_setting_that_a_config_lacks_is_an_error(name):
    config = {key: value for key, value in CONFIG.items() if key != name}
    with pytest.raises(ValueError, match=f"config: has no '{name}'"):
        DataSettings.from_config(config)


def test_a_setting_renamed_on_one_side_is_an_error():
    renamed = {"uncertainty" if key == "uncertain" else key: value for key, value in CONFIG.items()}
    with pytest.raises(ValueError, match="config: has no 'uncertain'"):
        DataSettings.from_config(renamed)
    with pytest.raises(TypeError, match="uncertainty"):
        DataSettings(corpus="phantom", uncertainty="ignore")
    with pytest.raises(TypeError, match="uncertainty"):
        CORPORA["phantom"]("phantom", uncertainty="ignore")


def test_every_setting_but_the_name_reaches_the_corpus(monkeypatch, tmp_path):
    given = {}

    def remember(self, *arguments, **options):
        bound = inspect.signature(Corpus.__init__).bind(self, *arguments, **options)
        given.update(bound.arguments)
        self.split_hash = "0"

    settings = DataSettings(
        corpus="custom", root=tmp_path, table="t.csv", name="ours", labels=("A",),
        uncertain="ones", cohort="all", image_size=32, val_fraction=0.1, split_seed=3,
        split_file="s.csv", limit=5, on_missing="skip", on_bad="skip", cache_dir="c",
        cache_only=True, workers=2)
    monkeypatch.setattr(CORPORA["custom"], "__init__", remember)
    open_split(settings, "val", tables_only=True, progress=False)
    expected = asdict(settings) | {"split": "val", "tables_only": True, "progress": False}
    for name in ("corpus", "name"):
        del expected[name]
    del given["self"]
    given |= given.pop("options")
    assert given == expected
    defaults = DataSettings(corpus="custom")
    same = [f.name for f in fields(settings)
            if getattr(settings, f.name) == getattr(defaults, f.name)]
    assert same == ["corpus"]  # so that a mix-up of two settings cannot go unseen


def test_settings_survive_their_way_through_a_config(tmp_path):
    settings = DataSettings(corpus="vindr", root=tmp_path, cache_dir=Path("c"), labels=["Nodule"])
    config = json.loads(json.dumps(settings.to_config()))
    assert DataSettings.from_config(config) == replace(
        settings, root=str(tmp_path), cache_dir="c")


def test_opening_names_what_is_unknown_or_absent(tmp_path):
    with pytest.raises(ValueError, match="data: expected one of vindr, .* found 'nosuch'"):
        open_split(DataSettings(corpus="nosuch"), "test")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        DataSettings(corpus="phantom").moved_to(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_split_that_is_not_the_expected_one_is_refused(tmp_path):
    make_phantom(tmp_path / "phantom", patients=10, size=32)
    settings = DataSettings(corpus="phantom", root=tmp_path / "phantom")
    split_hash = open_split(settings, "train", tables_only=True).split_hash
    assert len(open_split(settings, "test", tables_only=True, expected_split_hash=split_hash))
    with pytest.raises(ValueError, match="is not split as it was in training"):
        open_split(settings, "test", tables_only=True, expected_split_hash="0" * 64)


def test_every_corpus_says_its_key_title_and_where_to_get_it():
    titles = set()
    for key, cls in CORPORA.items():
        assert cls.corpus == key, f"{cls.__name__}.corpus is {cls.corpus!r}, not its key {key!r}"
        assert cls.title, f"{cls.__name__} has no title, by which it is printed"
        assert cls.access, f"{cls.__name__} does not say where to get the corpus"
        assert cls.title not in titles, f"{cls.__name__}: another corpus is called {cls.title}, too"
        titles.add(cls.title)
