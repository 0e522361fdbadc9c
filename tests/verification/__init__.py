"""Comparisons with programs that others wrote: `python -m tests.verification NAME`. docs/verification.md lists them."""
