"""Coverage of the tests per package: assets/coverage.svg and the table of docs/testing.md. `make coverage` runs this.

python docs/draw_coverage.py build/coverage.json    a file of `coverage json`, measured with branches
"""

import datetime
import json
import platform
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURE, PAGE = ROOT / "assets" / "coverage.svg", ROOT / "docs" / "testing.md"
BEGIN, END = "<!-- coverage: written by docs/draw_coverage.py -->\n", "<!-- end of coverage -->"
PACKAGES = ("ops", "models", "util", "vis", "programs")
KEYS = ("covered_lines", "num_statements", "covered_branches", "num_branches")
ROW, LEFT, WIDTH = 44, 90, 400  # height of a package, where bars begin, what 100% is wide


def totals(report: dict) -> dict[str, dict[str, int]]:
    """Package -> files and KEYS, summed; the programs are the files of the root. Last "all"."""
    sums: dict[str, dict[str, int]] = {name: defaultdict(int) for name in (*PACKAGES, "all")}
    for name, file in report["files"].items():
        package = Path(name).parts[0] if len(Path(name).parts) > 1 else "programs"
        for found in (sums[package], sums["all"]):
            found["files"] += 1
            for key in KEYS:
                found[key] += file["summary"][key]
    return sums


def share(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0


def table(sums: dict[str, dict[str, int]]) -> str:
    rows = ["| package | files | statements | executed | branches | taken |", "|---|---|---|---|---|---|"]
    for name, found in sums.items():
        lines, statements, taken, branches = (found[key] for key in KEYS)
        rows.append(
            f"| {name} | {found['files']} | {statements:,} | {share(lines, statements):.1f}% "
            f"| {branches:,} | {share(taken, branches):.1f}% |"
        )
    return "\n".join(rows) + "\n"


def figure(sums: dict[str, dict[str, int]]) -> str:
    """Two bars per package: statements executed, branches taken."""
    height = ROW * len(sums) + 36
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 70}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f"<title>{', '.join(f'{name} {share(x[KEYS[0]], x[KEYS[1]]):.1f}%' for name, x in sums.items())}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<rect x="{LEFT}" y="10" width="12" height="12" fill="#2a6f97"/>',
        f'<text x="{LEFT + 18}" y="20" fill="#222222">statements executed</text>',
        f'<rect x="{LEFT + 160}" y="10" width="12" height="12" fill="#89c2d9"/>',
        f'<text x="{LEFT + 178}" y="20" fill="#222222">branches taken</text>',
    ]
    for row, (name, found) in enumerate(sums.items()):
        top = 32 + ROW * row
        parts.append(f'<text x="{LEFT - 8}" y="{top + 22}" text-anchor="end" fill="#222222">{name}</text>')
        for offset, (part, whole), colour in ((0, KEYS[:2], "#2a6f97"), (18, KEYS[2:], "#89c2d9")):
            percent, bar = share(found[part], found[whole]), f'<rect x="{LEFT}" y="{top + offset}" height="16"'
            parts += [
                f'{bar} width="{WIDTH}" fill="#eeeeee"/>',
                f'{bar} width="{WIDTH * percent / 100:.1f}" fill="{colour}"/>',
                f'<text x="{LEFT + WIDTH + 6}" y="{top + offset + 13}" fill="#222222">{percent:.1f}%</text>',
            ]
    return "\n".join([*parts, "</svg>\n"])


def main(path: str) -> None:
    report = json.loads(Path(path).read_text())
    sums = totals(report)
    FIGURE.write_text(figure(sums))
    before, rest = PAGE.read_text().split(BEGIN)
    measured = (
        f"Measured on {datetime.date.today()} with coverage {report['meta']['version']} and Python "
        f"{platform.python_version()}:\n\n"
    )
    PAGE.write_text(before + BEGIN + measured + table(sums) + END + rest.split(END, 1)[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
