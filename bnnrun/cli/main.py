"""`bnnrun VERB ...`: takes the verb off, checks the rest, and lets Hydra run it."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bnnrun import __version__
from bnnrun.cli.compiling import announce_compiling
from bnnrun.cli.job import described, run_hydra, tell, work
from bnnrun.cli.lasting import outlast_terminal
from bnnrun.cli.verbs import VERBS, Verb
from bnnrun.errors import InputError, Stopped, nearest
from bnnrun.lock import locked
from bnnrun.train import STATE


def main() -> None:
    """Entry point of the `bnnrun` command."""
    argv = sys.argv[1:]
    verb = VERBS.get(argv[0]) if argv else None
    shows = verb is None or not verb.is_run or bool({"--help", "-h", "--cfg", "-c"} & set(argv))
    if shows and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `bnnrun data | head` ends quietly
    if not shows:
        outlast_terminal()
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
    from bnnrun.cli.compose import checked_config

    own = {f"--{name}": f"{name}=true" for name in verb.flags}
    flags, hydra_flags, words = _split_flags([word for word in argv if word not in own])
    words = [*_as_overrides(verb, words), *(own[word] for word in argv if word in own)]
    if flags.config_dir is not None:
        words.append(_search_path(flags.config_dir))
    if flags.help:
        from bnnrun.cli.help import verb_help

        verb_help(verb, words)
        return 0
    if flags.multirun and not verb.is_run:
        raise InputError(f"-m: `bnnrun {verb.name}` is no run; train, bench and eval take -m")
    if verb.is_run:
        _check_names(argv)
        words = _resumed(words, multirun=flags.multirun)
    words, typed = checked_config(verb, words, multirun=flags.multirun)
    shows = flags.cfg is not None or flags.info is not None or flags.hydra_help
    if not verb.is_run and not shows:
        verb.load()(typed)
        return 0
    if flags.multirun and not shows:
        from bnnrun.cli.sweep import Sweep

        return Sweep(verb, argv).run(hydra_flags, words)
    statuses = [0]
    if shows:
        run_hydra(verb, [*hydra_flags, *words], _complete_only)
        return 0
    from bnnrun.cli.compose import quoted, run_folder

    folder = run_folder(verb, words)
    # Hydra writes its files there before it calls anybody, so the folder is taken first.
    with locked(folder) as lock:
        _refuse_another_run(verb, typed, folder)
        words = [*words, f"hydra.run.dir={quoted(str(folder))}"]
        run_hydra(
            verb,
            [*hydra_flags, *words],
            lambda composed: _single(verb, composed, statuses, lock.check),
        )
    return max(statuses)


def _check_names(argv: list[str]) -> None:
    """InputError for a name that is not UTF-8: a run's files, which hold it, are."""
    for name, what in ((str(Path.cwd()), "the folder of this run"), *((w, "a word") for w in argv)):
        if name.encode("utf-8", "replace") != os.fsencode(name):
            raise InputError(f"{name!r}: {what} whose name is not UTF-8; rename it")


def _refuse_another_run(verb: Verb, typed: Any, folder: Path) -> None:
    """InputError where the folder holds a training run that is not the one to go on with."""
    if not (folder / STATE).exists():
        return
    if verb.name != "train":
        raise InputError(f"{folder}: holds a training run; take another hydra.run.dir=")
    if typed.resume is None and not typed.again:
        raise InputError(
            f"{folder}: holds a run's {STATE}; resume={folder} goes on with it, another "
            "hydra.run.dir= keeps it, again=true trains anew in its place"
        )


def _split_flags(argv: list[str]) -> tuple[Any, list[str], list[str]]:
    """Hydra's flags as parsed, the words that they are, and the other words."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> None:
        raise InputError(f"{message}; `--help` and `--hydra-help` list what there is")

    parser.error = refuse  # type: ignore[method-assign, assignment]
    flags = parser.parse_intermixed_args(argv)
    if flags.config_path is not None or flags.config_name is not None:
        raise InputError("--config-path, --config-name: the verb decides; --config-dir adds files")
    others = list(flags.overrides)
    flag_words = [word for word in argv if word not in others]
    if flags.config_dir is not None:  # handed on as a setting, which is checked as all others
        at = next(
            i for i, word in enumerate(flag_words) if word.startswith(("--config-dir", "-cd"))
        )
        del flag_words[at : at + (1 if "=" in flag_words[at] else 2)]
    return flags, flag_words, others


def _search_path(folder: str) -> str:
    """--config-dir FOLDER as a setting: the user's own experiments stand beside ours."""
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise InputError(f"--config-dir {folder}: no such folder")
    from bnnrun.cli.compose import quoted

    return f"hydra.searchpath=[{quoted(f'file://{path}')}]"


def _as_overrides(verb: Verb, words: list[str]) -> list[str]:
    """The bare words of a verb that takes some, as settings.

    `data verify mnist svhn` is `data action=verify "sets=['mnist','svhn']"`; a file whose name
    holds "=" is a bare word where it is there.
    """
    if not verb.action and not verb.words:
        return words
    bare = [word for word in words if _is_bare(word, files=not verb.action)]
    others = [word for word in words if word not in bare]
    if verb.action and bare:
        others.append(f"{verb.action}={bare.pop(0)}")
    if bare and not verb.words:
        raise InputError(f"{bare[0]!r}: expected key=value behind `bnnrun {verb.name} ACTION`")
    if bare:
        from bnnrun.cli.compose import quoted

        others.append(f"{verb.words}=[{','.join(map(quoted, bare))}]")
    return others


def _is_bare(word: str, *, files: bool) -> bool:
    if "=" in word:
        return files and Path(word).exists()
    return not word.startswith("~")


def _resumed(words: list[str], *, multirun: bool) -> list[str]:
    """With resume=FOLDER, the words that made that run, then those given now, in its folder."""
    from omegaconf import OmegaConf

    from bnnrun.cli.compose import parse

    value = next((o.value() for o in parse(words) if o.key_or_group == "resume"), None)
    if value is None:
        return words
    if multirun:
        raise InputError(
            f"resume={value}: with -m each job finds its own folder and goes on; leave it out"
        )
    folder = Path(str(value)).expanduser()
    saved = folder / ".hydra" / "overrides.yaml"
    if not saved.is_file():
        raise InputError(f"resume={folder}: no run folder ({saved} is not there)")
    loaded = [str(word) for word in OmegaConf.load(saved)]
    before = [word for word in loaded if not word.startswith("resume=")]
    if not any(word.startswith("hydra.searchpath=") for word in words):
        hydra = OmegaConf.load(saved.with_name("hydra.yaml")).hydra.overrides.hydra
        before += [str(word) for word in hydra if str(word).startswith("hydra.searchpath=")]
    quoted = str(folder).replace("'", "\\'")
    # The words that began the run stay the ones that are read here the next time.
    return [*before, *words, f"hydra.run.dir='{quoted}'", "hydra.output_subdir=null"]


def _single(verb: Verb, composed: Any, statuses: list[int], check: Callable[[], None]) -> None:
    """A run by itself; its error is told here, as Hydra would add lines of its own."""
    from bnnrun.cli.compose import to_config

    try:
        work(verb, to_config(composed), described(verb, check))
    except Exception as error:
        if composed.debug:
            traceback.print_exc()
        statuses.append(tell(error))
