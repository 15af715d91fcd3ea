"""Help made from the configuration itself: every key with its meaning, unit, range and default."""

from enum import Enum
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from bnnrun import __version__, settings
from bnnrun.cli.compose import checked_config, hydra_session
from bnnrun.cli.verbs import VERBS, Verb


def _console() -> Console:
    return Console(highlight=False, soft_wrap=False)


def _grid() -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True, style="cyan")
    return table


def tool_help() -> None:
    """What `bnnrun --help` shows."""
    console = _console()
    console.print(
        f"bnnrun {__version__}: Binarized Neural Networks (Courbariaux et al., 2016), reproduced."
        "\n\nUsage: bnnrun VERB [group=choice ...] [key=value ...]\n",
        markup=False,
    )
    table = _grid()
    table.add_column()
    for verb in VERBS.values():
        table.add_row(f"  {verb.name}", verb.meaning)
    console.print(table)
    console.print(
        "\n`bnnrun VERB --help` lists its groups and keys. Every verb takes Hydra's --cfg job and\n"
        "--info; train and bench take -m (one run for each value of `seed=0,1,2`). With -m, train\n"
        "skips what has its record and goes on with what was cut off.\n"
        'Completion in bash: eval "$(bnnrun -sc install=bash)"',
        markup=False,
    )


def verb_help(verb: Verb, words: list[str]) -> None:
    """What `bnnrun VERB --help` shows; the defaults are those of the words given with it."""
    words, typed, _ = checked_config(verb, words, multirun=False)
    console = _console()
    console.print(f"bnnrun {verb.name}: {verb.meaning}\n", markup=False)
    groups = _groups(verb, words)
    usage = f"Usage: bnnrun {verb.name}"
    if verb.action:
        actions = type(getattr(typed, verb.action))
        usage += f" [{'|'.join(a.value for a in actions)}]"
    usage += f" [{verb.words.upper()} ...]" if verb.words else ""
    usage += " [group=choice ...]" if groups else ""
    console.print(f"{usage} [key=value ...]\n", markup=False)
    if groups:
        console.print("Groups (* is the choice now; `group=choice` takes another):")
        table = _grid()
        table.add_column()
        for name, (chosen, options) in groups.items():
            shown = (f"{option}*" if option == chosen else option for option in options)
            table.add_row(f"  {name}", "  ".join(shown))
        console.print(table)
        console.print()
    console.print("Keys, their values now, what they take and mean:")
    for key, field, value in settings.leaves(typed):
        if not key.endswith(".name"):  # a group's choice sets it
            now, expected = escape(_show(value)), escape(_expected(field, value))
            console.print(f"  [cyan]{key}[/]={now}  [dim]{expected}[/]")
            console.print(Padding(escape(field.metadata["meaning"]), (0, 0, 0, 6)))
    console.print("\nExamples:")
    for example in verb.examples:
        console.print(f"  {example}", markup=False)


def _groups(verb: Verb, words: list[str]) -> dict[str, tuple[str | None, list[str]]]:
    with hydra_session():
        loader = GlobalHydra.instance().config_loader()
        choices = compose(verb.name, words, return_hydra_config=True).hydra.runtime.choices
        return {
            name: (choice, loader.get_group_options(name))
            for name, choice in choices.items()
            if "/" not in name
        }


def _show(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Enum):
        return str(value.value)
    if value == "":
        return "''"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _expected(field: Any, value: Any) -> str:
    """'int >= 1, epochs' from a field's type, range and unit."""
    if isinstance(value, Enum):
        return "one of " + ", ".join(choice.value for choice in type(value))
    type_name = getattr(field.type, "__name__", str(field.type).replace(" | None", " or null"))
    text = {"int": "integer", "float": "number", "bool": "true or false", "str": "text",
            "str or null": "text or null",
            "list": "list [a,b]"}.get(type_name, type_name)  # fmt: skip
    if field.metadata.get("valid"):
        text += settings.describe_interval(field.metadata["valid"]).removeprefix("a number")
    if field.metadata.get("unit"):
        text += f", {field.metadata['unit']}"
    return text
