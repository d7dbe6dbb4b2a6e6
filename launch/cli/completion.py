"""What a shell offers for a word that is half typed; where nothing is returned it offers files."""


def recipes(incomplete: str) -> list[str]:
    """Returns the names of configurations that come with the package."""
    try:
        from launch.config import file
    except ImportError:  # a client, without the pipeline
        return []
    return [name for name in file.recipes() if name.startswith(incomplete)]


def families(incomplete: str) -> list[str]:
    """Returns the families of simulated samples."""
    from operators.optics.samples import FAMILIES, HELD_OUT_FAMILIES

    return [name for name in (*FAMILIES, *HELD_OUT_FAMILIES) if name.startswith(incomplete)]


def actions(incomplete: str) -> list[str]:
    """Returns what `steer` can say."""
    from launch.commands.steer import ACTIONS

    return [name for name in ACTIONS if name.startswith(incomplete)]
