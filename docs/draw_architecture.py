"""Draw the pictures of docs/architecture.md from the imports of the code.

    python docs/draw_architecture.py

replaces the Mermaid pictures of the page; a test compares them with the imports. An arrow points from a folder, or a
module of its own, to what it imports. What is reached through another arrow anyway is left out.
"""

import ast
import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
FLOORS = ("ops", "models", "util", "vis")  # from the lowest
PICTURE = re.compile(r"(<!-- picture: (\w+) -->\n)```mermaid\n.*?```", re.DOTALL)
Arrows = dict[str, set[str]]  # a name, and the names that it points to


def modules() -> dict[str, Path]:
    """Dotted names of the modules of the product, and their files."""
    files = [*ROOT.glob("*.py"), *(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))]
    dotted = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    return {name.removesuffix(".__init__"): path for name, path in sorted(dotted.items())}


def imports(path: Path, known: Mapping[str, Path]) -> set[str]:
    """The modules of `known` that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(names & known.keys() or {node.module})
    return found & known.keys()


def floor_of(module: str) -> str:
    """ops, models, util or vis; programs, or engines, for the modules of the top folder."""
    top = module.split(".")[0]
    return top if top in FLOORS else "engines" if top.startswith("engine_") else "programs"


def room_of(module: str, known: Mapping[str, Path]) -> str:
    """The folder of a module below its floor, "data/prepare", or the module itself where it lies on the floor; a
    command that is run by `python -m` stands for itself."""
    path = known[module].relative_to(ROOT)
    if path.stem == "__main__":
        return "python -m " + ".".join(path.parts[:-1])
    return "/".join(path.parts[1:-1]) or path.stem


def between(names: Mapping[str, str], known: Mapping[str, Path]) -> Arrows:
    """Arrows between the names that `names` gives to modules; modules that it leaves out have none."""
    arrows: Arrows = {name: set() for name in names.values()}
    for module, name in names.items():
        reached = {names[other] for other in imports(known[module], known) if other in names}
        arrows[name] |= reached - {name}
    return arrows


def reduced(arrows: Arrows) -> Arrows:
    """Without the arrows whose end is reached along others. Those of a circle all stay."""

    def beyond(name: str) -> set[str]:
        seen: set[str] = set()
        left = [name]
        while left:
            for other in arrows.get(left.pop(), ()):
                if other not in seen:
                    seen.add(other)
                    left.append(other)
        return seen

    reach = {name: beyond(name) for name in arrows}
    return {
        name: {
            other
            for other in others
            if not any(other in reach[via] and name not in reach[via] for via in others if via != other)
        }
        for name, others in arrows.items()
    }


def mermaid(arrows: Arrows, labels: Mapping[str, str]) -> str:
    lines = ["flowchart TD"]
    lines += [f'    {_identity(name)}["{labels.get(name, name)}"]' for name in sorted(arrows)]
    lines += [
        f"    {_identity(name)} --> {_identity(other)}" for name in sorted(arrows) for other in sorted(arrows[name])
    ]
    return "\n".join(lines)


def _identity(name: str) -> str:
    return "n_" + re.sub(r"\W", "_", name)


def pictures() -> dict[str, str]:
    """Mermaid text by the name that the page gives it: the floors, and the inside of each."""
    known = modules()
    drawn = {"floors": mermaid(reduced(between({module: floor_of(module) for module in known}, known)), {})}
    for floor in FLOORS:
        # the face of a folder belongs to it, that of the floor itself to nothing: it hands on what others hold
        rooms = {m: room_of(m, known) for m in known if floor_of(m) == floor and m != floor}
        drawn[floor] = mermaid(reduced(between(rooms, known)), _labels(rooms, known))
    return drawn


def _labels(rooms: Mapping[str, str], known: Mapping[str, Path]) -> dict[str, str]:
    """A folder ends in a stroke, a module in .py."""
    return {
        room: room if room.startswith("python") else f"{room}.py" if known[module].stem == room else f"{room}/"
        for module, room in rooms.items()
    }


def page(text: str, drawn: Mapping[str, str]) -> str:
    """The page with its pictures replaced. ValueError for a picture that it does not show."""
    shown = [name for _, name in PICTURE.findall(text)]
    if sorted(shown) != sorted(drawn):
        raise ValueError(f"{PAGE} shows the pictures {shown}, there are {list(drawn)}")
    return PICTURE.sub(lambda match: f"{match[1]}```mermaid\n{drawn[match[2]]}\n```", text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), pictures()), encoding="utf-8")
