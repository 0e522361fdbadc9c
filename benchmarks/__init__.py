"""The speed of the scan and the training step, compared with the machine's limits measured in the same run.

Each program writes results/<theme>_<instructions>_<hardware>_<date>.md; `make bench` runs them all. No test depends on
a timing.
"""
