"""``djepa recipes``: what there is to train, what it says, in what two differ, and whether yours is right."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="List, show, compare, copy and check recipes.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="A recipe's name, such as image/digits, or the path of a .yaml file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values to replace.")]
Smoke = Annotated[bool, typer.Option("--smoke", help="The run in miniature, as djepa train --smoke makes it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]


@app.command("ls")
def list_recipes(
    modality: Annotated[str | None, typer.Option("--modality", help="Only those with a stream of this modality.")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes of the installed packages, and whether a trained model comes with them."""
    from djepa.errors import UnknownNameError, suggest

    rows = list(_rows())
    if modality is not None:
        known = {name for row in rows for name in row["modalities"]}
        if modality not in known:
            raise UnknownNameError(f"No recipe has a stream of modality {modality!r}. {suggest(modality, known)}")
        rows = [row for row in rows if modality in row["modalities"]]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        _print_table(rows)
    else:
        for row in rows:
            print("\t".join(_cells(row)))


@app.command("show")
def show_recipe(
    name: Name,
    overrides: Overrides = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="Every value, and who gave it.")] = False,
    with_data: Annotated[bool, typer.Option("--data", help="Look at the data for what they decide: shapes, classes, "
                                                           "statistics.")] = False,
    smoke: Smoke = False,
) -> None:
    """Print a recipe as it is written; with --resolved, --data, --smoke or overrides, every value and where it comes from.

    That is a recipe's name or file, "override", "default", "smoke", "data" for what the data decide, or "required" where
    nothing stands yet and only you can know what.
    """
    from djepa.recipe import Recipe
    from djepa.recipe.layers import leaves, plain
    from djepa.recipe.load import locate, read_text
    from djepa.recipe.recipe import every_value
    from djepa.recipe.yaml_text import render_yaml

    if not (resolved or with_data or smoke or overrides):
        print(read_text(locate(name)[1]).removesuffix("\n"))
        return
    if with_data:
        recipe = Recipe.load(name, overrides or [], smoke=smoke)  # before torch is imported
        from djepa.outline import values_with_data

        tree = values_with_data(recipe)
    else:
        tree = every_value(name, overrides or [], smoke=smoke)
    print(render_yaml(plain(tree), leaves(tree)), end="")


@app.command("diff")
def compare_recipes(
    name: Name,
    other: Name,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values to replace in the second.")] = None,
    smoke: Smoke = False,
    as_json: Json = False,
) -> None:
    """Print the values in which two recipes differ, and who gave them."""
    from djepa.recipe.recipe import differences, every_value

    found = differences(every_value(name, smoke=smoke), every_value(other, overrides or [], smoke=smoke))
    if as_json:
        print(json.dumps([{"path": path, "a": a and vars(a), "b": b and vars(b)} for path, (a, b) in found.items()],
                         indent=2, ensure_ascii=False))
        return
    for path, (a, b) in found.items():
        print(f"{path}\n  - {_leaf(a)}\n  + {_leaf(b)}")


@app.command("cp")
def copy_recipe(
    name: Name,
    destination: Annotated[Path, typer.Argument(help="A file ending in .yaml, or an existing folder.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Copy a recipe as it is written, to change what you like."""
    from djepa import __version__
    from djepa.errors import UsageError
    from djepa.files import atomic_file
    from djepa.recipe.json_schema import SCHEMA_FILE
    from djepa.recipe.load import locate, read_text

    origin, source = locate(name)
    target = _target(destination, source)
    if target.exists() and not force:
        raise UsageError(f"{str(target)!r} exists already: choose another name, or replace it with --force.")
    text = read_text(source)
    _check_portable(text, origin)
    header = f"# A copy of the recipe {origin} (djepa {__version__}). Train it: djepa train {target}\n"
    if (target.parent / SCHEMA_FILE).is_file():
        header += f"# yaml-language-server: $schema={SCHEMA_FILE}\n"
    with atomic_file(target) as temporary:
        temporary.write_text(header + text, encoding="utf-8")
    print(target)


@app.command("schema")
def write_schema(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file to write it to, instead of printing it.")] = None,
) -> None:
    """Print a JSON Schema of recipes, the installed plugins' components included, for an editor to check and complete by.

    As recipe.schema.json beside your recipes it is found by djepa recipes cp, which tells editors of it.
    """
    from djepa.files import atomic_file
    from djepa.recipe.json_schema import recipe_json_schema

    text = json.dumps(recipe_json_schema(), indent=1, ensure_ascii=False) + "\n"
    if out is None:
        print(text, end="")
        return
    with atomic_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(out)


@app.command("validate")
def validate_recipes(
    names: Annotated[list[str], typer.Argument(metavar="NAME_OR_PATH|KEY=VALUE",
                                               help="Recipes, and values to replace in each of them.")],
    build: Annotated[bool, typer.Option("--build", help="Also put the model together, without weights, and count.")] = False,
    smoke: Smoke = False,
) -> None:
    """Check recipes: print ok for each that is right, or else everything that is wrong. Exit code 2 if anything is."""
    from djepa.errors import DjepaError, RecipeError, UsageError

    overrides = [word for word in names if "=" in word and not Path(word).is_file()]
    references = [word for word in names if word not in overrides]
    if not references:
        raise UsageError("There is no recipe to check: give the name or path of at least one before the overrides.")
    failures = []
    for reference in references:
        try:
            print(f"ok {reference}{_checked(reference, overrides, build, smoke)}")
        except DjepaError as error:
            failures.append(str(error))
    if failures:
        raise RecipeError("\n".join(failures))


def _checked(reference: str, overrides: list[str], build: bool, smoke: bool) -> str:
    """What there is to say of a recipe that is right; its own miniature has to be right as well."""
    from djepa.recipe import Recipe

    recipe = Recipe.load(reference, overrides, smoke=smoke)
    if not smoke:
        Recipe.load(reference, overrides, smoke=True)
    if not build:
        return ""
    from djepa.errors import DjepaError, RecipeError
    from djepa.outline import outline

    try:
        return f" {outline(recipe)}"
    except DjepaError as error:
        raise RecipeError(f"{reference} cannot be built: {error}") from error


def _leaf(leaf: Any) -> str:
    from djepa.recipe.yaml_text import inline_yaml

    return "nothing" if leaf is None else f"{inline_yaml(leaf.value)}  # {leaf.origin}"


def _rows() -> Iterator[dict[str, Any]]:
    """What a listing says of each recipe; read without being checked, so that it takes no plugin's code to list it."""
    from djepa.errors import UsageError
    from djepa.recipe import model_names, recipe_names
    from djepa.recipe.layers import plain
    from djepa.recipe.load import load

    shipped = set(model_names())
    for name in recipe_names():
        try:
            document = plain(load(name).tree)
            described = {"modalities": _modalities(document), "description": str(document.get("description", ""))}
        except UsageError as error:
            described = {"modalities": [], "description": f"cannot be read: {error}"}
        yield {"name": name, **described, "model": name in shipped}


def _modalities(document: dict[str, Any]) -> list[str]:
    model = document.get("model")
    streams = model.get("streams") if isinstance(model, dict) else None
    nodes = streams.values() if isinstance(streams, dict) else []
    return sorted({str(node["modality"]) for node in nodes if isinstance(node, dict) and "modality" in node})


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    model = "with a trained model" if row["model"] else "to train"
    return row["name"], ", ".join(row["modalities"]), model, row["description"]


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("recipe", "modality", "model", "description", box=None)
    for row in rows:
        table.add_row(*(Text(cell) for cell in _cells(row)))  # Text: a description is not markup
    Console().print(table)


def _target(destination: Path, source: Path) -> Path:
    from djepa.errors import UsageError
    from djepa.recipe.load import SUFFIXES

    if destination.is_dir():
        return destination / source.name
    if destination.suffix not in SUFFIXES:
        raise UsageError(f"{str(destination)!r} is neither a folder that exists nor a file name that ends in "
                         f"{' or '.join(SUFFIXES)}.")
    return destination


def _check_portable(text: str, origin: str) -> None:
    from djepa.errors import UsageError
    from djepa.recipe.load import SUFFIXES
    from djepa.recipe.yaml_text import parse_yaml

    document = parse_yaml(text, origin)
    parent = document.get("extends") if isinstance(document, dict) else None
    if isinstance(parent, str) and parent.endswith(SUFFIXES) and not Path(parent).is_absolute():
        raise UsageError(f"{origin} extends the file {parent!r} beside it, which a copy elsewhere would not find; copy "
                         f"both by hand.")
