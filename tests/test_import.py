"""The package's face is light and complete."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cerebras_gpt

HEAVY = {"torch", "numpy", "pydantic", "tokenizers", "scipy", "matplotlib", "typer", "rich"}


def test_importing_the_package_imports_nothing_heavy():
    script = "import sys, cerebras_gpt, cerebras_gpt.process; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not HEAVY & set(told.stdout.split())


@pytest.mark.parametrize("name", cerebras_gpt.__all__)
def test_every_public_name_is_there(name):
    assert getattr(cerebras_gpt, name) is not None
    assert name in dir(cerebras_gpt)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(cerebras_gpt.__file__).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {(node.module, alias.name) for node in block.body for alias in node.names}
    found = {(f"cerebras_gpt.{module}", name) for module, names in cerebras_gpt._HOMES.items() for name in names}
    assert seen == found
    assert {name for _, name in found} | {"__version__"} == set(cerebras_gpt.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="Plam"):
        _ = cerebras_gpt.Plam
