"""The version of the wheel; all else is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import setup

CARGO = Path(__file__).with_name("Cargo.toml").read_text(encoding="utf-8")
VERSION = re.search(r'^\[workspace\.package\]\nversion = "([^"]+)"$', CARGO, re.MULTILINE)
if VERSION is None:
    raise SystemExit("Cargo.toml has no version below [workspace.package]")

setup(version=VERSION[1])
