"""A label sheet with the published counts of EGD: 774 rows; which cells go together is made up, the totals are not."""

import openpyxl

# (IDH, 1p19q): (subjects of grade 2, 3, 4, without a grade); -1 is unknown.
COUNTS = {
    (1, 1): (40, 25, 0, 8),
    (1, 0): (51, 13, 5, 8),
    (1, -1): (3, 2, 0, 0),
    (0, 0): (10, 5, 86, 8),
    (0, -1): (5, 0, 170, 28),
    (-1, -1): (0, 0, 0, 307),
}


def write_egd_sheet(path):
    """The sheet as .xlsx at `path`; returns the subjects' names."""
    book = openpyxl.Workbook()
    book.active.append(["Subject", "IDH", "1p19q", "Grade"])
    names = []
    for (idh, codeletion), by_grade in COUNTS.items():
        for grade, count in zip((2, 3, 4, -1), by_grade, strict=True):
            for _ in range(count):
                names.append(f"EGD-{len(names):04d}")
                book.active.append([names[-1], idh, codeletion, grade])
    book.save(path)
    return names
