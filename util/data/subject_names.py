"""Valid names of subjects. They become parts of file names, tables, figures and web pages."""

FORBIDDEN = "/\\"
FORMULA = "=+-@"  # a spreadsheet evaluates a cell that starts with one of these
MAX_BYTES = 200  # file systems allow 255 for a file name, to which we add a contrast and suffixes


def name_problem(subject: str) -> str | None:
    """Why a subject cannot have this name, with the fix; None if the name is valid.

    Refused are names that leave a folder, break a line, contain invisible characters or become a formula. Characters of
    HTML are allowed because reports escape them.
    """
    shown = repr(subject if len(subject) <= 60 else subject[:60] + "...")
    if not subject or subject != subject.strip():
        reason = "is empty, or starts or ends with a space"
    elif not subject.isprintable():
        reason = "holds a line break or another character that cannot be printed"
    elif any(character in subject for character in FORBIDDEN) or subject.startswith("."):
        reason = 'holds a slash or starts with "." and could leave its folder'
    elif subject[0] in FORMULA:
        reason = f'starts with "{subject[0]}", which a spreadsheet evaluates as a formula'
    elif len(subject.encode()) > MAX_BYTES:
        reason = f"is longer than {MAX_BYTES} bytes"
    else:
        return None
    return f"the subject name {shown} {reason}; rename the subject"
