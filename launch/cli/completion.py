"""What a shell offers for a word that is half typed; where nothing is returned it offers files."""

from pathlib import Path

RECIPES = Path(__file__).parents[1] / "recipes"
OTHER_RECIPES = ("train-", "simulate-")  # of trainings and simulations, which are files to copy


def recipes(incomplete: str) -> list[str]:
    """Returns the names of configurations that come with the package."""
    names = sorted(file.stem for file in RECIPES.glob("*.yaml"))
    return [name for name in names if name.startswith(incomplete) and not name.startswith(OTHER_RECIPES)]


def families(incomplete: str) -> list[str]:
    """Returns the families of simulated samples."""
    from operators.optics.samples import FAMILIES, HELD_OUT_FAMILIES

    return [name for name in (*FAMILIES, *HELD_OUT_FAMILIES) if name.startswith(incomplete)]


def actions(incomplete: str) -> list[str]:
    """Returns what `steer` can say."""
    from launch.commands.steer import ACTIONS

    return [name for name in ACTIONS if name.startswith(incomplete)]
