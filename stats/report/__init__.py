"""The report of studies: `result_tables` (rows of text), `formats` (Markdown, LaTeX, CSV, JSON),
`write` (the folder of files) and `figures` (the paper's Figures 3 and 4; needs matplotlib).
"""
