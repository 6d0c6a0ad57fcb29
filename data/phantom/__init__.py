"""Synthetic radiographs, for trying everything without a patient's image: `python -m data.phantom`.

`render` draws one, `layouts` writes many, `corpus` is the default corpus of them.
"""
