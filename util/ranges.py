"""Numbers within a range, as checks of options: text becomes a number, or an error that states the range."""

import argparse
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`."""

    low: int
    high: int

    def __call__(self, text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = self.low - 1
        if not self.low <= value <= self.high:
            raise argparse.ArgumentTypeError(f'"{text[:40]}" is not a whole number from {self.low:,} to {self.high:,}')
        return value


@dataclass(frozen=True)
class Real:
    """A finite number from `low` to `high`; `above` and `below` leave out the ends themselves."""

    low: float
    high: float
    above: bool = False
    below: bool = False
    unit: str = ""

    def __call__(self, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        is_low = value <= self.low if self.above else value < self.low
        is_high = value >= self.high if self.below else value > self.high
        if is_low or is_high or math.isnan(value):
            start = f"{'above' if self.above else 'of at least'} {self.low:,g}"
            end = f"{'below' if self.below else 'at most'} {self.high:,.12g}"
            raise argparse.ArgumentTypeError(f'"{text[:40]}" is not a number {start} and {end}{self.unit}')
        return value


positive = Whole(1, 10**9)
count = Whole(0, 10**9)
not_negative = Real(0, 1e6)
minutes = Real(0, 10 * 366 * 24 * 60, above=True, unit=" minutes")
"""A time of at most ten years."""
seed = Whole(0, 2**32 - 1)
processes = Whole(0, 1024)
threads = Whole(1, 1024)
factor = Real(0, 1, above=True)
"""Above 0, at most 1."""
part = Real(0, 1, above=True, below=True)
"""A part that is neither nothing nor all."""
part_or_none = Real(0, 1, below=True)
"""A part that is not all; 0 for none."""
rate = Real(0, 100)
"""A learning rate or weight decay."""
