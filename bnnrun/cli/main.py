"""`bnnrun VERB ...`: takes the verb off, checks the rest, and lets Hydra run it."""

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from bnnrun import __version__
from bnnrun.cli import terminal
from bnnrun.cli.compiling import announce_compiling
from bnnrun.cli.job import run_hydra, tell
from bnnrun.cli.ranks import refuse_ranks
from bnnrun.cli.verbs import VERBS, Verb
from bnnrun.errors import InputError, Stopped, nearest


def main() -> None:
    """Entry point of the `bnnrun` command."""
    terminal.prepare()
    argv = sys.argv[1:]
    verb = VERBS.get(argv[0]) if argv else None
    shows = verb is None or not verb.is_run or bool({"--help", "-h", "--cfg", "-c"} & set(argv))
    if shows and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `bnnrun data | head` ends quietly
    if not shows:
        terminal.outlast()
    announce_compiling()
    sys.exit(run(argv))


def run(argv: list[str]) -> int:
    """Do what the words ask; an error is one line on stderr and a status."""
    try:
        return _dispatch(argv)
    except (Exception, Stopped, KeyboardInterrupt) as error:
        if any(word.lower() == "debug=true" for word in argv):
            traceback.print_exc()
        return tell(error)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        from bnnrun.cli.help import tool_help

        tool_help()
        return 0
    if argv[0] == "--version":
        print(f"bnnrun {__version__}")
        return 0
    if argv[0] in ("-sc", "--shell-completion"):
        from bnnrun.cli.completion import complete

        if len(argv) < 2:
            raise InputError(f"{argv[0]}: expected install=bash, install=zsh or install=fish")
        complete(argv[1], lambda name, words: run_hydra(VERBS[name], words, task=_complete_only))
        return 0
    verb = VERBS.get(argv[0])
    if verb is None:
        raise InputError(f"{argv[0]!r}: no such verb; {nearest(argv[0], VERBS)} (bnnrun --help)")
    return _run_verb(verb, argv[1:])


def _complete_only(composed: Any) -> None:
    """What Hydra is given to run when it is only asked for completions."""


def _run_verb(verb: Verb, argv: list[str]) -> int:
    from bnnrun.cli.arguments import split
    from bnnrun.cli.compose import checked_config
    from bnnrun.cli.resume import resumed

    flags, hydra_flags, words = split(verb, argv)
    if flags.help:
        from bnnrun.cli.help import verb_help

        verb_help(verb, words)
        return 0
    if flags.multirun and not verb.is_run:
        raise InputError(f"-m: `bnnrun {verb.name}` is no run; train, bench and eval take -m")
    if verb.is_run:
        _check_names(argv)
        words = resumed(verb, words, multirun=flags.multirun)
    checked = checked_config(verb, words, multirun=flags.multirun)
    shows = flags.cfg is not None or flags.info is not None or flags.hydra_help
    if not verb.is_run and not shows:
        verb.load()(checked.typed)
        return 0
    if flags.multirun and not shows:
        from bnnrun.cli.sweep import Sweep

        return Sweep(verb, argv).run(checked.words)
    if shows:
        run_hydra(verb, [*hydra_flags, *checked.words], _complete_only)
        return 0
    if getattr(checked.typed, "plan", False):
        raise InputError("plan=true: lists the jobs of a sweep; add -m")
    refuse_ranks(verb.name)
    from bnnrun.cli.single import run_alone

    return run_alone(verb, checked)


def _check_names(argv: list[str]) -> None:
    """InputError for a name that is not UTF-8: a run's files, which hold it, are."""
    for name, what in ((str(Path.cwd()), "the folder of this run"), *((w, "a word") for w in argv)):
        try:
            os.fsencode(name).decode("utf-8")  # the locale's encoding may be another
        except UnicodeDecodeError:
            raise InputError(f"{name!r}: {what} whose name is not UTF-8; rename it") from None
