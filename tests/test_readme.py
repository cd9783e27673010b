"""What README shows works: its Python runs as it stands, its commands parse, and what documents link to is there."""

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from PIL import Image

from tests.stream_server import stream_app
from tests.toy_models import toy_checkpoint
from tests.toy_streams import picture, toy_live
from tests.toy_videos import write_clip
from tests.web_server import running, toy_app
from vidseq.cli import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8000"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shell_lines(program: str) -> list[list[str]]:
    """The words of every line of a shell block that starts with `program`, which is left out."""
    lines = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
    return [words[1:] for words in lines if words[:1] == [program]]


def python_with(word: str) -> str:
    """The one Python block with this word."""
    (block,) = [block for block in blocks("python") if word in block]
    return block


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a reader stands: beside a `model` and a `clip.mp4`."""
    toy_checkpoint(tmp_path / "model")
    write_clip(tmp_path / "clip.mp4")
    with contextlib.chdir(tmp_path):
        yield tmp_path


def test_every_python_block_is_run_by_one_of_the_tests_below() -> None:
    assert blocks("python") == [python_with("Classifier"), python_with("top_k"), python_with("push")]


@pytest.mark.usefixtures("folder")
def test_the_block_for_this_machine_labels_a_clip_and_follows_a_stream(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(compile(python_with("Classifier"), "README.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + names["prediction"].sampled.num_frames  # type: ignore[attr-defined]


@pytest.mark.usefixtures("folder")
def test_the_block_for_http_asks_a_service() -> None:
    block, names = python_with("top_k"), dict[str, object]()
    assert ADDRESS in block
    with running(toy_app()) as url:
        exec(compile(block.replace(ADDRESS, url), "README.md", "exec"), names)
    assert len(names["prediction"].top) == 3  # type: ignore[attr-defined]


@pytest.mark.usefixtures("folder")
def test_the_block_for_streams_is_answered_while_it_sends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = python_with("push")
    assert ADDRESS in block
    Image.fromarray(picture(0)).save("frame.jpg")
    with toy_live(tmp_path) as live, running(stream_app(live, tmp_path)) as url:
        exec(compile(block.replace(ADDRESS, url), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 5 and "label=" in lines[0]


@pytest.mark.parametrize("words", shell_lines("vidseq"), ids=" ".join)
@pytest.mark.usefixtures("folder")
def test_every_command_of_vidseq_is_one_that_it_takes(words: list[str]) -> None:
    """Parsed by the real command line, and not run: unknown options and missing arguments are refused."""
    group = typer.main.get_command(app)
    while words[0] in getattr(group, "commands", {}):
        group, words = group.commands[words[0]], words[1:]  # type: ignore[attr-defined]
    assert group.make_context("vidseq", words).params


def test_the_readme_shows_the_commands_a_person_needs() -> None:
    assert {words[0] for words in shell_lines("vidseq")} == {
        "train",
        "evaluate",
        "compare",
        "export",
        "jobs",
        "keys",
        "predict",
        "score",
        "serve",
        "watch",
    }


def test_every_word_for_make_is_a_target() -> None:
    asked = {words[0] for words in shell_lines("make")} | set(re.findall(r"`make (\w+)", README))
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert asked >= {"demo", "test"}
    assert asked - targets == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_inside_the_project_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_benchmark_that_is_named_exists(document: Path) -> None:
    names = set(re.findall(r"python -m benchmarks\.(\w+)", document.read_text()))
    assert [name for name in names if not (ROOT / "benchmarks" / f"{name}.py").exists()] == []


def test_readme_links_are_found_at_all() -> None:
    assert "](docs/results.md)" in README and "](vidseq/schemas.py)" in README
