"""Builds the wheel: one package, mamba_mae_3d, from the folders and scripts of this checkout.

In a checkout `models`, `ops`, `util` and `vis` are packages of their own, so that the plain scripts run. Installed
beside other projects such names would collide. So the wheel holds them as mamba_mae_3d.models and so on, and the
imports between them are rewritten while they are copied. An editable install keeps the names of the checkout.
"""

import ast
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

PACKAGE = "mamba_mae_3d"
ROOT = Path(__file__).resolve().parent
FOLDERS = ("ops", "models", "util", "vis")
SCRIPTS = (
    "commands", "prepare_data", "main_pretrain", "engine_pretrain", "main_cr_finetune", "engine_finetune",
    "predict", "probe", "compare",
)  # fmt: skip
FACE = '"""Masked autoencoders of bidirectional Mamba blocks for multi-contrast brain MRI."""\n'
COMMAND = f"from {PACKAGE}.commands import main\n\nmain()\n"
DATA = {
    "ops.cpu": ["csrc/*"],
    "util.export": ["templates/*"],
    "vis.export": ["templates/*"],
    "vis.reporting": ["templates/*"],
}


def with_prefix(source: str) -> str:
    """The same module with its imports from FOLDERS and SCRIPTS changed to imports from PACKAGE."""
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in (*FOLDERS, *SCRIPTS):
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = line.replace(f"from {node.module}", f"from {PACKAGE}.{node.module}", 1)
        elif isinstance(node, ast.Import):
            for name in (alias.name for alias in node.names):
                if name.split(".")[0] in (*FOLDERS, *SCRIPTS):
                    raise ValueError(f"line {node.lineno}: write `from ... import ...` instead of `import {name}`")
    return "\n".join(lines)


class BuildPackage(build_py):
    """Copies modules with their imports rewritten, and adds what makes the copies a package of their own."""

    def run(self) -> None:
        super().run()
        top = Path(self.build_lib) / PACKAGE
        for name, text in (("__init__.py", FACE), ("__main__.py", COMMAND), ("py.typed", "")):
            (top / name).write_text(text, encoding="utf-8")
        for name in SCRIPTS:
            (top / f"{name}.py").write_text(
                with_prefix((ROOT / f"{name}.py").read_text(encoding="utf-8")), encoding="utf-8"
            )

    def build_module(self, module, module_file, package):
        copied = super().build_module(module, module_file, package)
        path = Path(copied[0])
        path.write_text(with_prefix(path.read_text(encoding="utf-8")), encoding="utf-8")
        return copied


folders = [name for top in FOLDERS for name in (top, *(f"{top}.{sub}" for sub in find_packages(str(ROOT / top))))]
if "editable_wheel" in sys.argv:
    setup(
        packages=folders,
        py_modules=list(SCRIPTS),
        entry_points={"console_scripts": ["mamba-mae = commands:main"]},
    )
else:
    setup(
        cmdclass={"build_py": BuildPackage},
        packages=[f"{PACKAGE}.{name}" for name in folders],
        package_dir={f"{PACKAGE}.{name}": name.replace(".", "/") for name in folders},
        package_data={f"{PACKAGE}.{name}": patterns for name, patterns in DATA.items()},
        entry_points={"console_scripts": [f"mamba-mae = {PACKAGE}.commands:main"]},
    )
