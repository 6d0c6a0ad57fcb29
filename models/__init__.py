"""The vision transformer, its official weights and its training.

In reading order: vit, weights, init_catalog, inits; inference, training, distributed, checkpoint;
settings; training_run, run_lock, run_files, run_messages; plan, features.

The names below are imported when they are used, so that a command line is answered without torch.
"""

import importlib

_HOMES = {"VisionTransformer": "vit", "create_model": "vit", "LoadReport": "weights",
          "load_pretrained": "weights", "from_pretrained": "weights"}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
