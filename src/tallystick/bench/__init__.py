"""The benchmarks behind `tally bench`: ratios and times of one run, baseline and candidate interleaved.

`write.run`, `read.run`, `fold.run`, `verify.run` and `counter.run` each make a database of their own on the server of
a URL, measure, drop it, and return one dict that is JSON as it stands:

    {"bench": "write", "quick": false, "machine": {...}, "figures": [...], "information": [...]}

A figure is a median with the spread of its rounds, a target, and whether it was met (`figures.py`); information has
no target. `quick` shrinks every size, so that the figures are noise and only show that the benchmark runs.
"""
