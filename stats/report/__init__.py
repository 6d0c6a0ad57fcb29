"""The report: `tables` of text, written by `formats`; `answers`, `checklist`, figures; `write`."""
