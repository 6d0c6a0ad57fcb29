"""Images of a corpus, preprocessed once and memory-mapped.

    store        the cache on disk: an array of pixels, and a record that vouches for each row
    fill         rows from image files, in this process or in several
    build        `build_cache`: brings the wanted rows up to date and opens the cache
    __main__     `python -m data.cache`: fill a cache ahead of time, merge caches
"""
