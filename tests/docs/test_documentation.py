"""What the documentation shows is true: settings exist, commands are spelt as they are, files are there."""

import functools
import itertools
import re
import tomllib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter
from typer.main import get_command

from docs import _generate
from launch.beamline.simulation import Simulation
from launch.cli import app
from launch.config.config import Config
from launch.config.file import RECIPES, load_config
from launch.training.recipe import DEMO_RECIPE, Recipe
from stream.detector.dialects import FEEDS
from tests.benchmarks.__main__ import BENCHMARKS
from tests.helpers.documentation import MARKS, ROOT, Block, all_blocks, blocks_of, name_of, pages

BLOCKS = all_blocks()
LANGUAGES = {"python", "bash", "yaml", "text", "toml"}
# Why a block is not run, and how many of them there are: each is a promise that nothing checks.
NOT_RUN = {
    "installs": 9,
    "another machine": 8,
    "needs a GPU": 5,
    "needs a steered scan": 2,
    "takes minutes to hours": 2,
    "a beamline's": 3,
}
PATH = re.compile(r"\.(npy|cxi|csv|safetensors|key\w*)$|^clients$")
SHELL = {"mkdir", "cp", "python3", ".", "ssh", "qserver", "umask"}


@functools.cache
def generated_pages() -> dict[str, str]:
    return _generate.pages()


def of(language: str, kind: str = "") -> list[Any]:
    found = [block for block in BLOCKS if block.language == language and block.kind == kind]
    return [pytest.param(block, id=str(block)) for block in found]


def test_every_block_says_its_language_and_what_happens_to_it() -> None:
    assert {block.language for block in BLOCKS} <= LANGUAGES
    assert {block.mark.rstrip(" 0123456789") for block in BLOCKS} <= MARKS | {""}


def test_blocks_that_are_not_run_are_few_and_say_why() -> None:
    reasons = [block.reason for block in BLOCKS if block.mark == "not run"]
    assert {reason: reasons.count(reason) for reason in reasons} == NOT_RUN


@pytest.mark.parametrize("block", of("yaml"))
def test_a_configuration_that_is_shown_is_one(block: Block, tmp_path: Path) -> None:
    settings = yaml.safe_load(block.text)
    known = yaml.safe_load((RECIPES / "demo.yaml").read_text())
    for path in _paths(settings):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    missing = {name: known[name] for name in ("geometry", "detector", "positions") if name not in settings}
    for name in ("detector", "positions"):
        given = settings.get(name, {})
        settings[name] = given if given.get("format") in FEEDS else {**known[name], **given}
    assert block.file == "" or "geometry" not in missing, f"{block}: {block.file} is no whole configuration"
    Config.model_validate({**missing, **settings}, context={"folder": tmp_path})


@pytest.mark.parametrize("block", of("yaml", "simulation"))
def test_a_simulation_that_is_shown_is_one(block: Block) -> None:
    TypeAdapter(Simulation).validate_python(yaml.safe_load(block.text))


@pytest.mark.parametrize("block", of("yaml", "recipe"))
def test_a_recipe_that_is_shown_is_one(block: Block, tmp_path: Path) -> None:
    given = yaml.safe_load(block.text)
    known = yaml.safe_load(DEMO_RECIPE.read_text())
    Recipe.model_validate(given if block.file else {**known, **given}, context={"folder": tmp_path})


@pytest.mark.parametrize("block", of("bash"))
def test_a_command_that_is_shown_exists_with_its_options(block: Block) -> None:
    assert block.commands
    for words in block.commands:
        _check_command(words)


@pytest.mark.parametrize("page", [pytest.param(page, id=name_of(page)) for page in pages()])
def test_commands_in_the_text_exist_with_their_options(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`((?:ptychostream|python -m) [^`]+)`", text):
        words = code.split()
        if "|" not in words and words[1] not in ("COMMAND", "NAME"):
            _check_command(words)


def _check_command(words: list[str]) -> None:
    match words:
        case ["ptychostream", name, *arguments]:
            _check_ptychostream(name, arguments)
        case ["torchrun", *arguments]:
            _check_ptychostream("train", arguments[arguments.index("train") + 1 :])
        case ["pip", "install", *_, what]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            named = re.search(r"\[(.+)\]", what)
            assert named is None or set(named[1].split(",")) <= set(extras), what
        case ["python", "-m", "tests.benchmarks", *arguments]:
            assert arguments == [] or arguments[0] in {*BENCHMARKS, "NAME"}, words
        case ["python", "-m", "pytest", *arguments] | ["pytest", *arguments]:
            assert all((ROOT / word).exists() for word in arguments if word.startswith("tests")), words
        case ["python", "-m", module, *_]:
            assert find_spec(module), words
        case [program, *_]:
            assert program in SHELL, f"no test knows the program {program!r}"


def _check_ptychostream(name: str, arguments: list[str]) -> None:
    program = get_command(app)
    if name.startswith("-"):
        assert name in {option for part in program.params for option in part.opts}
        return
    command = program.commands[name]  # type: ignore[attr-defined]
    if not arguments and any(part.required for part in command.params):
        return  # in a sentence: the command's name alone
    command.make_context(name, list(arguments), allow_interspersed_args=True)
    overrides = [value for option, value in itertools.pairwise(arguments) if option == "--set"]
    for override in overrides:
        key = override.partition("=")[0].split(".")
        assert _knows(key), f"--set {override}: there is no such setting"


def _knows(key: list[str]) -> bool:
    schema = TypeAdapter(Config).json_schema()
    fields = schema["properties"]
    for part in key[:-1]:
        fields = schema["$defs"][fields[part]["$ref"].rpartition("/")[2]]["properties"]
    return key[-1] in fields


def _paths(settings: Any) -> list[str]:
    """Every value that is the name of a file, or of a folder with keys."""
    if isinstance(settings, dict):
        return [path for key, value in settings.items() if key != "save" for path in _paths(value)]
    if isinstance(settings, list):
        return [path for value in settings for path in _paths(value)]
    is_path = isinstance(settings, str) and PATH.search(settings)
    return [settings] if is_path else []


def test_every_setting_has_a_meaning_of_its_own() -> None:
    generated = generated_pages()
    for name in ("configuration", "recipes", "simulations", "commands"):
        without = [line for line in generated[name].splitlines() if re.match(r"\| `.*\|\s*\|$", line)]
        assert not without, name
    for name in ("configuration", "recipes", "simulations"):
        for section in generated[name].split("\n## "):
            rows = [line for line in section.splitlines() if line.startswith("| `")]
            meanings = Counter(row.rsplit(" | ", 1)[1] for row in rows)
            assert not [meaning for meaning, n in meanings.items() if n > 1], section


def test_every_setting_of_the_recipes_is_on_the_pages_that_are_generated() -> None:
    page = generated_pages()["configuration"]
    for name in ("demo", "siemens", "beamline"):
        for section, fields in yaml.safe_load((RECIPES / f"{name}.yaml").read_text()).items():
            text = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
            assert all(f"| `{field}` |" in text for field in fields), section


def test_a_configuration_page_names_every_section() -> None:
    config = load_config("demo")
    sections = [name for name in dict(config) if isinstance(getattr(config, name), BaseModel)]
    page = generated_pages()["configuration"]
    assert sections and all(f"\n## {name}\n" in page for name in sections)


@pytest.mark.parametrize("page", [pytest.param(page, id=name_of(page)) for page in pages()])
def test_files_that_a_page_links_to_or_names_are_there(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    folder = ROOT / "docs" / "how-to" if page.name == "CONTRIBUTING.md" else page.parent
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if link and not _is_there(folder / link)]
    named = re.findall(r"`((?:operators|stream|launch|tests|docs)/[\w/.-]+)`", text)
    missing += [name for name in named if not (ROOT / name).exists()]
    assert not missing


def _is_there(path: Path) -> bool:
    """Whether a link leads somewhere: generated pages are made when the site is."""
    if path.parent.name == "generated":
        return path.stem in generated_pages()
    return path.exists() or path.with_name(f"{path.name}.md").exists()


def test_the_list_of_questions_leads_to_every_page_of_its_folder() -> None:
    folder = ROOT / "docs" / "how-to"
    linked = re.findall(r"\]\(([\w-]+)\.md\)", (folder / "index.md").read_text())
    assert sorted(linked) == sorted(page.stem for page in folder.glob("*.md") if page.stem != "index")


def test_decisions_say_what_was_asked_what_was_decided_what_it_costs_and_when() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*/*.md"))
    assert decisions
    for page in decisions:
        text = page.read_text()
        assert re.search(r"^\*20\d\d-\d\d-\d\d\*$", text, re.MULTILINE), page
        assert all(f"**{part}.** " in text for part in ("Question", "Decision", "Cost")), page


def test_every_row_of_figures_has_a_command_and_a_date() -> None:
    for page in (ROOT / "docs" / "measured").glob("*.md"):
        text = page.read_text()
        if "| measured |" not in text:
            continue
        assert "virtual machine" in text or "H200" in text, page
        assert re.search(r"20\d\d-\d\d-\d\d", text), page
        assert re.search(r"`(python -m tests\.benchmarks|ptychostream) ", text), page


def test_the_front_page_is_read_in_a_minute() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 130
    assert [block for block in blocks_of(ROOT / "README.md") if "ptychostream demo" in block.text]


@pytest.mark.parametrize("folder", ["operators", "stream", "launch"])
def test_the_readme_of_a_folder_is_one_screen_and_names_its_rooms(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text()
    assert len(text.splitlines()) <= 50
    rooms = {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
    assert not {room for room in rooms if f"`{room}/`" not in text}
