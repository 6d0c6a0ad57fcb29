"""Images of a corpus, preprocessed once and memory-mapped: `python -m data.cache`.

On disk they are a `store`, `fill` makes its rows in one or more processes, and `build` opens it.
"""
