"""`resume=RUN`: the words that made a run, as they were meant where it was begun."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bnnrun import upgrade
from bnnrun.cli.compose import keys_of
from bnnrun.cli.verbs import Verb
from bnnrun.cli.words import (
    TextKey,
    as_word,
    canonical,
    literal,
    parse,
    place_from,
    quoted,
    text_of,
)
from bnnrun.errors import InputError
from bnnrun.files import user_path

SEARCH_PATH = "hydra.searchpath"


def resumed(verb: Verb, words: list[str], *, multirun: bool) -> list[str]:
    """With resume=FOLDER, the words that made that run, then those given now, in its folder.

    What was relative then is relative to the folder where the run was begun, if that is still
    there; what is typed now, to the folder now.
    """
    keys = keys_of(verb)
    typed = {_key(word): literal(word, keys) for word in words}
    text = text_of(typed["resume"]) if "resume" in typed else None
    if text is None:
        return words
    if multirun:
        raise InputError(
            f"resume={text}: with -m each job finds its own folder and goes on; leave it out"
        )
    folder = user_path(text)
    saved = folder / ".hydra" / "overrides.yaml"
    if not saved.is_file():
        raise InputError(f"resume={text}: no run folder ({saved} is not there)")
    hydra = _load(saved.with_name("hydra.yaml"))["hydra"]
    search = [w for w in map(str, hydra["overrides"]["hydra"]) if _key(w) == SEARCH_PATH]
    before = {
        _key(word): canonical(word, keys)
        for word in upgrade.words(
            list(map(str, [*_load(saved), *search])), hydra["runtime"]["choices"].get("optimizer")
        )
    }
    before.pop("resume", None)
    began = Path(hydra["runtime"]["cwd"])
    if began.is_dir() and not began.samefile(Path.cwd()):
        before |= _places(keys, _load(saved.with_name("config.yaml")), began)
        if SEARCH_PATH in before:
            before[SEARCH_PATH] = _search_path(before[SEARCH_PATH], began)
    _refuse_another_init(typed.get("init"), before.get("init"), folder)
    if SEARCH_PATH in typed:
        before.pop(SEARCH_PATH, None)
    # The words that began the run stay the ones that are read here the next time.
    own = [as_word("hydra.run.dir", folder), "hydra.output_subdir=null"]
    return [*before.values(), *words, *own]


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _load(path: Path) -> Any:
    """What Hydra saved, as plain lists and dicts, nothing in it resolved."""
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:  # the YAML reader has errors of its own
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not what a run leaves there ({reason})") from None


def _places(keys: dict[str, TextKey], saved: Any, began: Path) -> dict[str, str]:
    """Words that name from anywhere the places of the configuration that are relative."""
    config, words = OmegaConf.create(saved), {}
    for key, kind in keys.items():
        if not kind.is_place or kind.is_list or key == "resume":
            continue
        try:
            text = OmegaConf.select(config, key)
        except OmegaConfBaseException:  # an environment variable that is not set here
            continue
        if text:
            named = place_from(str(text), began)
            if named != text and not user_path(text).is_absolute():
                words[key] = as_word(key, named)
    return words


def _search_path(word: str, began: Path) -> str:
    """Hydra's folders of choices, named from anywhere; pkg:// and the like are no folders."""
    named = []
    for entry in map(str, parse([word])[0].value()):  # type: ignore[arg-type]
        scheme, separator, path = entry.rpartition("://")
        is_folder = not separator or scheme == "file"
        named.append(f"file://{place_from(path, began)}" if is_folder else entry)
    return f"{SEARCH_PATH}=[{','.join(map(quoted, named))}]"


def _refuse_another_init(typed: str | None, saved: str | None, folder: Path) -> None:
    """InputError where the run was not begun from the weights that are named now."""
    if typed is None:
        return
    now, then = text_of(typed), text_of(saved) if saved else None
    same = now == then or (now and then and user_path(now).resolve() == user_path(then).resolve())
    if not same:
        raise InputError(
            f"init={now}: the run in {folder} began from {then or 'weights of its own'}; leave "
            "init= out to go on with it, or resume= to begin a new run"
        )
