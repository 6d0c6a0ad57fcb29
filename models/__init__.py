"""The vision transformer, its official weights and its training.

In reading order:

    vit           the transformer
    weights       every layout of published weights -> our state dict, loaded strictly
    records       what a run can start from: one record an init
    inits         a model as an init starts it, its file downloaded and checked
    inference     from cached radiographs to probabilities
    training      loss, learning rate, optimizer
    distributed   several processes as one run
    checkpoint    files of tensors, written whole or not at all
    settings      every setting of a run, and its command line
    run_folder    the folder of a run: its lock, its state, its log
    plan          what a run would do and take
    probe         frozen features: logistic regression, nearest neighbors
    adopt         networks trained elsewhere; `python -m models.adopt`

The names below are imported when they are used, so that a command line is answered without torch.
"""

import importlib

_HOMES = {"VisionTransformer": "vit", "create_model": "vit", "LoadReport": "weights",
          "load_pretrained": "weights", "from_pretrained": "weights"}
__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
