"""Makes scripts/ctreport_webdataset.py of the modules of python/ctwds: one file to copy, which needs NumPy and PyTorch.

python3 scripts/standalone.py           # writes it
python3 scripts/standalone.py --check   # exit code 1 if it is not what would be written
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "ctwds"
TARGET = ROOT / "scripts" / "ctreport_webdataset.py"
LAST = "config"  # the module that all others of the file lead to
DOCUMENTED = "shard_dataset"  # the module whose docstring is that of the file
WIDTH = 120

HEAD = """\
CT volumes and reports for PyTorch: from shards (mounted by ctwds-fs, or files) or from NPZ, with the same output.

This file is all there is to copy into a project that does not install the package ctwds, of whose modules it is made by
scripts/standalone.py: change those. It needs Python 3.10, NumPy and PyTorch, and PyYAML where a configuration is given
as a path. Compressed shards (`*.zst`) need Python 3.14, or one of the packages backports.zstd and pyzstd; where the
package ctwds is installed, its decoder reads them, which is faster.

    from ctreport_webdataset import CTReportWebDataset
    loader = CTReportWebDataset("/data/shards/shard-{000000..000471}.tar").make_loader(batch_size=2, num_workers=4)
    for epoch in range(10):
        for volumes, texts, labels, study_ids, embeddings in loader: ...
"""


class Module:
    """A module of the package: its docstring, its imports, and the text below them."""

    def __init__(self, name: str) -> None:
        text = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
        self.name, self.doc = name, ""
        self.siblings: list[str] = []
        self.plain: set[str] = set()
        self.names: dict[str, set[str]] = {}
        self.defined: list[str] = []
        end = 0
        for node in ast.parse(text).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and end == 0:
                self.doc = str(node.value.value)
            elif not self._imports(node):
                self.defined += defined_by(node)
                continue
            if self.defined:
                raise SystemExit(f"{name}.py: line {node.lineno}: an import below the first definition")
            end = node.end_lineno or 0
        self.body = "\n".join(text.splitlines()[end:]).strip("\n")

    def _imports(self, node: ast.stmt) -> bool:
        """Take over a statement that imports; the modules that only a type checker imports are of the same file."""
        if isinstance(node, ast.Import):
            self.plain |= {f"{one.name} as {one.asname}" if one.asname else one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            if node.module is None or any(one.asname for one in node.names):
                raise SystemExit(f"{self.name}.py: line {node.lineno}: siblings are imported by the names in them")
            self.siblings.append(node.module)
        elif isinstance(node, ast.ImportFrom):
            found = {one.name for one in node.names} - {"TYPE_CHECKING"}
            self.names.setdefault(str(node.module), set()).update(found)
        else:
            return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        return True


def defined_by(node: ast.stmt) -> list[str]:
    """The names that a statement gives to the module."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def in_order(name: str, found: dict[str, Module]) -> dict[str, Module]:
    """A module, behind all that it imports."""
    if name not in found:
        module = Module(name)
        for sibling in sorted(module.siblings):
            in_order(sibling, found)
        found[name] = module
    return found


def import_lines(modules: list[Module]) -> list[str]:
    """The imports of all modules, as the formatter sorts them."""
    plain = set[str]().union(*(module.plain for module in modules))
    names: dict[str, set[str]] = {}
    for module in modules:
        for source, found in module.names.items():
            names.setdefault(source, set()).update(found)
    lines = ["from __future__ import annotations"]
    for is_standard in (True, False):
        lines.append("")
        lines += [f"import {one}" for one in sorted(plain) if standard(one) == is_standard]
        for source in sorted(names):
            if names[source] and source != "__future__" and standard(source) == is_standard:
                lines += from_lines(source, sorted(names[source], key=by_kind))
    return lines


def standard(name: str) -> bool:
    """Whether a module comes with Python."""
    return name.partition(".")[0].partition(" ")[0] in sys.stdlib_module_names


def by_kind(name: str) -> tuple[int, str]:
    """Constants before classes before functions."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


def from_lines(source: str, names: list[str]) -> list[str]:
    """One import, in several lines if it is too wide for one."""
    line = f"from {source} import {', '.join(names)}"
    return [line] if len(line) <= WIDTH else [f"from {source} import (", *(f"    {one}," for one in names), ")"]


def made() -> str:
    """The text of the file."""
    modules = list(in_order(LAST, {}).values())
    homes: dict[str, str] = {}
    for module in modules:
        for name in module.defined:
            if homes.setdefault(name, module.name) != module.name:
                raise SystemExit(f"{homes[name]}.py and {module.name}.py both define {name}")
    rest = next(module.doc for module in modules if module.name == DOCUMENTED).partition("\n\n")[2]
    parts = [f'"""{HEAD}\n{rest}"""', "", *import_lines(modules)]
    for module in modules:
        rule = f"# {'-' * (WIDTH - 3 - len(module.name))} {module.name}"
        is_definition = module.body.startswith(("class ", "def ", "@"))
        parts += ["", *([""] if parts[-1].startswith("    ") else []), rule, "", *([""] if is_definition else [])]
        parts += module.body.splitlines()
    return "\n".join(parts) + "\n"


def main() -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the file is not current")
    text = made()
    if not parser.parse_args().check:
        TARGET.write_text(text, encoding="utf-8")
    elif TARGET.read_text(encoding="utf-8") != text:
        print(f"{TARGET}: not what the modules of {PACKAGE} make: run scripts/standalone.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
