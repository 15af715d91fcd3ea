"""What the documentation names is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "kernels" / "README.md"])
ROW = re.compile(r"^\| .+ \| `([\w/]+\.py)` \| (`\w+`(?:, `\w+`)*) \|$", re.MULTILINE)
PAPER = ROW.findall((ROOT / "docs" / "paper_to_code.md").read_text(encoding="utf-8"))
PLACES = ROOT, ROOT / "bnnrun"


@pytest.mark.parametrize(("path", "names"), PAPER, ids=str)
def test_each_equation_is_found_where_the_table_says(path, names):
    tree = ast.parse((ROOT / "bnnrun" / path).read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert set(re.findall(r"\w+", names)) <= defined


def test_the_papers_table_is_whole():
    """Every equation and algorithm of the paper that code stands for, and all its tables."""
    text = (ROOT / "docs" / "paper_to_code.md").read_text(encoding="utf-8")
    assert len(PAPER) > 25
    for cited in ("Eq. 1", "Eq. 2-3", "Eq. 4-5", "Eq. 6", "Alg. 1", "Alg. 3", "Alg. 4", "Alg. 5",
                  "Table 1", "Tables 2 and 3", "Figure 1", "Figure 2", "Figure 3"):  # fmt: skip
        assert cited in text, cited


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(path):
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*\.(?:py|cu|yaml|md)|(?:[\w-]+/)+)`", text))
    linked = {target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target}
    at_run_time = {"outputs/sweeps/", "hydra/"}
    for name in named - at_run_time:
        if not re.search(r"[A-Z]{4}", name):  # a place for a name
            assert any((place / name).exists() for place in PLACES), name
    for target in linked:
        assert (path.parent / target).exists(), target


def test_methods_of_the_engine_are_those_of_the_walk():
    source = (ROOT / "bnnrun" / "nn" / "engine.py").read_text(encoding="utf-8")
    text = (ROOT / "docs" / "paper_to_code.md").read_text(encoding="utf-8")
    walk = text[text.index("| step |") :]
    methods = re.findall(r"^\| [^|]+ \| `(\w+)`", walk, re.MULTILINE)
    assert len(methods) == 6
    for name in methods:
        assert f"def {name}(self" in source
