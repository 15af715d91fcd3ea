"""What Hydra, OmegaConf and the YAML reader find wrong, in one line."""

import re
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from bnnrun.errors import InputError, nearest

QUOTES, LINE_END = "'\"", b"\n"
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # what YAML does not take
# What brings those of Hydra's launchers and sweepers that are packages of their own.
PLUGINS = {
    "hydra/launcher": {
        "joblib": "bnnrun[joblib]",
        "ray": "hydra-ray-launcher",
        "ray_aws": "hydra-ray-launcher",
        "rq": "hydra-rq-launcher",
        "submitit_local": "bnnrun[slurm]",
        "submitit_slurm": "bnnrun[slurm]",
    },
    "hydra/sweeper": {
        "ax": "hydra-ax-sweeper",
        "nevergrad": "hydra-nevergrad-sweeper",
        "optuna": "hydra-optuna-sweeper",
    },
}


def check_plugin(group: str, choice: str, installed: list[str]) -> None:
    """InputError for a known plugin of Hydra that is not there, naming its package."""
    package = PLUGINS.get(group, {}).get(choice)
    if package and choice not in installed:
        raise InputError(
            f"{group}={choice}: a plugin of Hydra that is not installed; `pip install '{package}'`"
        )


def explained(error: Exception, words: list[str], folders: list[Path]) -> InputError:
    """What composing the words has raised, as wrong input.

    Args:
        folders: of the user's own YAML files; a fault in one is reported with file and line
    """
    if type(error) is KeyError:  # of os.environ; OmegaConf's own are subclasses
        return InputError(f"hydra.job.env_copy: the environment has no variable {error.args[0]}")
    message = _type_error(error, words) or _no_file(error) or _of_file(error, words, folders)
    return InputError(message or one_line(error))


def one_line(error: BaseException) -> str:
    """The first lines of Hydra's or OmegaConf's message: what is wrong, and where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = "; ".join(line for line in lines[:2] if not line.startswith(("object_type", "See ")))
    reason = error.__cause__ or error.__context__
    return message or (one_line(reason) if reason else repr(error))


def _type_error(error: Exception, words: list[str]) -> str | None:
    """OmegaConf's complaint about a value, told with the word that held it."""
    cause = error.__cause__ if isinstance(error, HydraException) else error
    key = getattr(cause, "full_key", None)
    assignment = next((word for word in words if word.partition("=")[0] == key), None)
    if assignment is None or cause is None:
        return None
    message = str(cause).splitlines()[0]
    if re.match(r"Key '.*' (is )?not in ", message):
        return None  # Hydra says how a key is added
    if match := re.search(r"(?:could not be converted to|is not a valid) (\w+)", message):
        kinds = {"Integer": "an integer", "Float": "a number",
                 "Boolean": "true or false", "bool": "true or false"}  # fmt: skip
        return f"{assignment}: expected {kinds.get(match[1], match[1])}"
    if match := re.search(r"expected one of \[(.*)\]", message):
        value, options = assignment.partition("=")[2], match[1].split(", ")
        hint = nearest(value, options)
        return f"{assignment}: expected one of {', '.join(options)}" + (
            f"; {hint}" if hint.startswith("did") else ""
        )
    if "invalid type assigned" in message.lower():
        return f"{assignment}: {key} is a group of keys; set those, such as {key}.KEY=VALUE"
    return f"{assignment}: {message[0].lower()}{message[1:]}"


def _no_file(error: Exception) -> str | None:
    """A choice that no file is there for, where it follows from another: of a profile."""
    match = re.search(r"Could not find '(\w+)/(.+)'\s+Available options in '\1':\n", str(error))
    if match is None:
        return None
    group, choice = match.groups()
    options = re.match(r"(?:\t.+\n?)*", str(error)[match.end() :])
    known = ", ".join(options[0].split()) if options else ""
    return f"{group}={choice}: no {group}/{choice}.yaml; {group}=NAME takes another: {known}"


def _of_file(error: Exception, words: list[str], folders: list[Path]) -> str | None:
    """A fault of the user's own YAML: FILE:LINE: what is wrong with it."""
    if mark := getattr(error, "problem_mark", None):  # the YAML reader's own errors
        problem, context = (getattr(error, name, None) or "" for name in ("problem", "context"))
        problem = f"{context} {problem}" if problem.startswith("but ") else problem
        return f"{mark.name}:{mark.line + 1}: {problem}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: cannot be read ({error.strerror})"
    if match := re.match(r"In '(.+)': \w+ raised while composing config:\s*(.*)", str(error)):
        path = _find(match[1], folders)
        return None if path is None else _of_key(path, match[1], match[2], str(error))
    if isinstance(error, (HydraException, OmegaConfBaseException)) and str(error):
        return None
    chosen = [word.partition("=") for word in words]
    paths = [_find(f"{group}/{choice.strip(QUOTES)}", folders) for group, _, choice in chosen]
    path = next(filter(None, paths), None)
    return None if path is None else _of_content(path, error)


def _of_key(path: Path, name: str, reason: str, message: str) -> str:
    """A key or value that the schema does not take, with its line where one line alone has it."""
    if reason.startswith(f"Key '{name.rpartition('/')[0]}' not in"):
        return f"{path}: its first line must be `# @package _global_`"
    match = re.search(r"full_key: (\S+)", message)
    key = re.escape(match[1].rpartition(".")[2]) if match else "(?!)"
    lines = path.read_text(encoding="utf-8").splitlines()
    at = [i for i, line in enumerate(lines, 1) if re.search(rf"(^|[\s{{,]){key}['\"]?\s*:", line)]
    return f"{path}{f':{at[0]}' if len(at) == 1 else ''}: {reason}"


def _of_content(path: Path, error: Exception) -> str:
    """What is no key or value of it: its bytes, its header, its defaults."""
    content = path.read_bytes()
    match = CONTROL.search(content)
    at = None if match is None else match.start()
    try:
        content.decode()
    except UnicodeDecodeError as undecodable:
        at = undecodable.start
    if at is not None:
        return f"{path}:{content.count(LINE_END, 0, at) + 1}: a byte that is no text in UTF-8"
    reason = "it takes itself for a default" if isinstance(error, RecursionError) else ""
    return f"{path}: {reason or one_line(error)}"


def _find(name: str, folders: list[Path]) -> Path | None:
    paths = (folder / f"{name}.yaml" for folder in folders)
    return next((path for path in paths if path.is_file()), None)
