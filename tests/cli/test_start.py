"""What a short run imports: each of these would add a second to its start."""

import subprocess
import sys

SLOW = ("sklearn", "pandas", "torch._dynamo", "sympy")


def test_a_short_run_imports_nothing_slow_that_it_does_not_use(tmp_path):
    script = f"""
import sys
from bnnrun.cli.main import run
words = ["dataset=digits", "arch.width=8", "trainer.epochs=2", "threads=1", "hydra.run.dir=run"]
for words in (["train", *words], ["train", "resume=run"], ["pack", "run=run"],
              ["eval", "model=run", "dataset=digits"]):
    assert run(words) == 0
print("imported:", [name for name in {SLOW} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported: []"
