"""Tab completion after a verb.

Hydra completes `key=value` words of an application that has no verbs. So the verb is taken off
the line, Hydra answers for that verb's configuration, and the verbs themselves are ours.
"""

import contextlib
import io
import os
from collections.abc import Callable
from typing import get_type_hints

from bnnrun.cli.verbs import VERBS


def complete(query: str, run_hydra: Callable[[str, list[str]], None]) -> None:
    """Answer `-sc QUERY` (install=SHELL, uninstall=SHELL, query=SHELL), as Hydra's own flag does.

    Args:
        run_hydra: (config name, words) -> None, Hydra's main
    """
    flags = ["--shell-completion", query]
    if not query.startswith("query="):
        run_hydra("train", flags)
        return
    words = os.environ.get("COMP_LINE", "").split(" ")
    if len(words) <= 2:
        typed = words[1] if len(words) == 2 else ""
        print(" ".join(name for name in VERBS if name.startswith(typed)))
        return
    verb = VERBS.get(words[1])
    if verb is None:
        return
    os.environ["COMP_LINE"] = " ".join([words[0], *words[2:]])
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer):
        run_hydra(verb.name, flags)
    # Hydra offers every group it finds; the schemas are for it alone.
    offered = [word for word in answer.getvalue().split() if not word.startswith("schema")]
    if verb.action:
        actions = (a.value for a in get_type_hints(verb.schema)[verb.action])
        offered += [action for action in actions if action.startswith(words[-1])]
    print(" ".join(offered))
