"""Names of subjects: part of file names, tables, figures and web pages, so some characters are refused everywhere."""

FORBIDDEN = "/\\"
FORMULA = "=+-@"  # a spreadsheet runs a cell that starts so
MAX_BYTES = 200  # file systems allow 255 for a name, and ours add a contrast, a suffix and a temporary ending


def name_problem(subject: str) -> str | None:
    """Why a subject cannot have this name, with the fix; None if it can.

    Refused: what leaves a folder, breaks a line, hides (control and format characters) or becomes a formula.
    Characters of HTML are allowed: reports escape them.
    """
    shown = repr(subject if len(subject) <= 60 else subject[:60] + "...")
    if not subject or subject != subject.strip():
        reason = "is empty, or starts or ends with a space"
    elif not subject.isprintable():
        reason = "holds a line break or another character that cannot be printed"
    elif any(character in subject for character in FORBIDDEN) or subject.startswith("."):
        reason = 'holds a slash or starts with "." and could leave its folder'
    elif subject[0] in FORMULA:
        reason = f'starts with "{subject[0]}", which a spreadsheet runs as a formula'
    elif len(subject.encode()) > MAX_BYTES:
        reason = f"is longer than {MAX_BYTES} bytes"
    else:
        return None
    return f"the subject name {shown} {reason}; rename the subject"
