"""The reference pages that come out of the code: settings, recipes, commands and messages.

Nothing here is written down twice: a key that the models do not have cannot be on a page, and one that they
have cannot be missing.
"""

from pathlib import Path

from pydantic import TypeAdapter

from docs._generate.commands import commands
from docs._generate.messages import message_tables
from docs._generate.settings import settings


def write_pages(folder: Path) -> None:
    """Writes all generated pages into `folder`; what has not changed keeps its time, for Sphinx."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Returns the text of every generated page by its name."""
    from launch.beamline.simulation import Simulation
    from launch.cli import app
    from launch.config.config import Config
    from launch.training.recipe import Recipe
    from stream.remote import messages as remote
    from stream.wire import messages

    return {
        "configuration": CONFIGURATION + settings(TypeAdapter(Config).json_schema()),
        "recipes": RECIPES + settings(TypeAdapter(Recipe).json_schema()),
        "simulations": SIMULATIONS + settings(TypeAdapter(Simulation).json_schema()),
        "commands": COMMANDS + commands(app),
        "messages": MESSAGES + message_tables(messages),
        "messages-elsewhere": MESSAGES_ELSEWHERE + message_tables(remote),
    }


CONFIGURATION = """# Every setting of a run

What can stand in the YAML file of `ptychostream run` and `ptychostream check`, section by section. A key
without a default is required. Any of them can also be given as `--set SECTION.KEY=VALUE` or in the
environment as `PTYCHOSTREAM__SECTION__KEY`. Relative paths start at the folder of the file.

This page is generated from the models that check the file.

"""

RECIPES = """# Every setting of a training

What can stand in the YAML file of `ptychostream train`. [](../../how-to/train.md) says how to choose them.
`[number, number]` is a range, least and most, from which each sample draws; one number stands for both.

This page is generated from the models that check the file.

"""

SIMULATIONS = """# Every setting of a simulation

What can stand in the YAML file of `ptychostream simulate --config`. Everything may be left out: the default
is a coherent, steady beam, a stage that is where it says, and an ideal detector. Pixels are object pixels,
those of the detector's effects detector pixels.

This page is generated from the models that check the file.

"""

COMMANDS = """# Every command

What can be typed after `ptychostream`. `ptychostream --install-completion` lets the shell complete commands,
options, recipes and families of samples; `ptychostream --version` names what is installed, for a report of a
bug.

| exit status | meaning |
|---|---|
| 0 | all went well |
| 1 | it did its work, and the answer is no: frames are missing, a check failed, nobody took frames |
| 2 | it could not begin, or not go on; standard error says why, with `PTYCHOSTREAM_DEBUG=1` also where |
| 129 | ended because its terminal was gone (SIGHUP: a lost ssh) |
| 130 | ended by Ctrl-C (SIGINT) |
| 143 | ended by `kill` (SIGTERM) |

These three signals do the same. `run` and `demo` finish what is recorded, `reconstruct` writes what the
epochs done have found, and each says where it lies; `train` goes on from its checkpoint when it is started
again. A second signal ends at once. `run` without `--series` ends in no other way: it leaves with 0 or 1.

No command replaces a file that exists unless it is told to with `--overwrite`, which all that write files
have; it says so before it begins to work. What it reads it never replaces. A file appears under its name
when it is whole: whatever ends a command in the middle, the old file is still there.

This page is generated from the command line itself.

"""

MESSAGES = """# Every message

What travels between the processes, with the bounds that each field is checked against when it arrives; what
does not fit, or is not named here, is refused. [](../wire.md) says who sends what to whom, and how a message
is put into bytes.

This page is generated from `stream/wire/messages.py`.

"""

MESSAGES_ELSEWHERE = """# Every message of workers elsewhere

What a run and its workers on other machines say to each other, with the bounds that each field is checked
against when it arrives. [](../wire.md) says which question gets which answer; bytes, `Hello`, `Welcome` and
`Reject` are those of [](messages.md).

This page is generated from `stream/remote/messages.py`.

"""
