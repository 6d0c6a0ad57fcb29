"""The report: `tables` of text, written by `formats`; `answers`, figures; `write`."""
