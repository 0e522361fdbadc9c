"""How fast the scan and the training step are, beside the machine's own limits measured in the same run.

Each program writes results/<theme>_<hardware>_<date>.md; `make bench` runs them all. No test depends on a timing.
"""
