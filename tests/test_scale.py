"""docs/scale.md says what its sums are: the tables are those that the command makes."""

from pathlib import Path

from benchmarks.scale import report

PAGE = Path(__file__).parents[1] / "docs/scale.md"


def test_the_tables_of_the_page_are_those_of_the_command() -> None:
    assert "\n".join(report(clips=1_000_000, hours=10.0, cameras=10_000)) in PAGE.read_text()


def test_twice_the_clips_take_twice_the_money() -> None:
    once, twice = (report(clips=clips, hours=10.0, cameras=1) for clips in (1_000_000, 2_000_000))

    def dollars(lines: list[str]) -> float:
        (line,) = [line for line in lines if line.startswith("| machines cost")]
        return float(line.split("|")[2].strip(" $").replace(",", ""))

    assert abs(dollars(twice) / dollars(once) - 2) < 0.01
