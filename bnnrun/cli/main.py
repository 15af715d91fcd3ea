"""`bnnrun VERB ...`: takes the verb off, checks the rest, and lets Hydra run it."""

import os
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from rich.console import Console

from bnnrun import __version__
from bnnrun.cli.verbs import VERBS, Verb
from bnnrun.errors import InputError, RunError, Stopped, nearest

WRONG_INPUT, FAILED, INTERRUPTED = 2, 1, 130
# Words that say where a run finds and leaves its files: no part of the command in its record.
OF_THIS_MACHINE = ("resume=", "results_dir=", "dataset.root=")


def main() -> None:
    """Entry point of the `bnnrun` command."""
    argv = sys.argv[1:]
    verb = VERBS.get(argv[0]) if argv else None
    shows = verb is None or not verb.is_run or bool({"--help", "-h", "--cfg", "-c"} & set(argv))
    if shows and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `bnnrun data | head` ends quietly
    sys.exit(run(argv))


def run(argv: list[str]) -> int:
    """Do what the words ask; an error is one line on stderr and a status."""
    try:
        return _dispatch(argv)
    except (Exception, Stopped, KeyboardInterrupt) as error:
        if any(word.lower() == "debug=true" for word in argv):
            traceback.print_exc()
        return _report(error)


def _report(error: BaseException) -> int:
    """Tell an error in one line; its exit status."""
    if isinstance(error, InputError):
        line, status = str(error), WRONG_INPUT
    elif isinstance(error, OSError) and error.filename is not None:
        line, status = f"{error.filename}: {error.strerror}; name another place", WRONG_INPUT
    elif isinstance(error, RunError):
        line, status = str(error), FAILED
    elif isinstance(error, Stopped):
        line, status = str(error), INTERRUPTED
    elif isinstance(error, KeyboardInterrupt):
        line, status = "interrupted", INTERRUPTED
    else:
        shown = " ".join(str(error).split())
        line = f"failed: {type(error).__name__}: {shown} (debug=true shows where)"
        status = FAILED
    print(f"bnnrun: {line}", file=sys.stderr)
    return status


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
        complete(argv[1], lambda name, words: _hydra(VERBS[name], words, task=_complete_only))
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
        words = _resumed(words)
    words, typed = checked_config(verb, words, multirun=flags.multirun)
    shows = flags.cfg is not None or flags.info is not None or flags.hydra_help
    if not verb.is_run and not shows:
        verb.load()(typed)
        return 0
    statuses = [0]
    _hydra(verb, [*hydra_flags, *words], task=lambda composed: _job(verb, composed, statuses))
    return max(statuses)


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


def _resumed(words: list[str]) -> list[str]:
    """With resume=FOLDER, the words that made that run, then those given now, in its folder."""
    from omegaconf import OmegaConf

    from bnnrun.cli.compose import parse

    value = next((o.value() for o in parse(words) if o.key_or_group == "resume"), None)
    if value is None:
        return words
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


def _job(verb: Verb, composed: Any, statuses: list[int]) -> None:
    """One run of a verb, in the folder that Hydra made for it."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from bnnrun import machine, records
    from bnnrun.cli.compose import to_config

    hydra = HydraConfig.get()
    search = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath=")]
    overrides = [w for w in hydra.overrides.task if not w.startswith(OF_THIS_MACHINE)] + search
    folder = Path(hydra.runtime.output_dir)
    here = Path.cwd()
    job = records.Run(
        folder=folder.relative_to(here) if folder.is_relative_to(here) else folder,
        command=shlex.join(["bnnrun", verb.name, *overrides]),
        experiment=hydra.runtime.choices.get("experiment") or "",
    )
    try:
        typed = to_config(composed)
        records.prepare(typed.results_dir)
        machine.source_state()
        for record in verb.load()(typed, job):
            path = records.write(record, typed.results_dir)
            Console(highlight=False).print(f"record: {path}", markup=False, soft_wrap=True)
    except Exception as error:
        # Told here: Hydra would add lines of its own. One failed job does not cost the others.
        if composed.debug:
            traceback.print_exc()
        if hydra.mode is RunMode.MULTIRUN:
            print(f"bnnrun: job {hydra.job.num} failed: {job.command}", file=sys.stderr)
        statuses.append(_report(error))


def _hydra(verb: Verb, words: list[str], task: Any) -> None:
    """Hydra's own main over the verb's configuration."""
    import hydra

    from bnnrun.cli.compose import CONF, VERSION_BASE, register_schemas

    register_schemas()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come back here, to be told in one line
    before, sys.argv = sys.argv, ["bnnrun", *words]
    try:
        hydra.main(version_base=VERSION_BASE, config_path=str(CONF), config_name=verb.name)(task)()
    finally:
        sys.argv = before
