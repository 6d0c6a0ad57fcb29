"""Synthetic radiographs, for trying everything without a patient's image: `python -m data.phantom`.

`render` draws one, `corpus` is the corpus of them, `layouts` imitates every release.
"""
