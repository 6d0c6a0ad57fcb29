"""Images preprocessed once and memory-mapped: a `store`, what `fill`s it, `build` to open it."""
