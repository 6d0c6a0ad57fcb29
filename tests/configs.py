"""The images of a run's config.json, or of a part of one."""

from dataclasses import fields, replace

from data import open_split
from data.settings import DataSettings


def open_config(config, split, **changes):
    """The split that a config describes; what it lacks is the default, `changes` come last."""
    names = {field.name for field in fields(DataSettings)}
    known = {name: value for name, value in config.items() if name in names}
    settings = replace(DataSettings(**known | {"corpus": config["data"]}), **changes)
    return open_split(settings, split, expected_split_hash=config.get("split_hash"))
