"""Figures as a person sees them: in 80 columns, the most important first, and nothing where there is nothing."""

from io import StringIO

import pytest
from rich.console import Console

from tests.toy_scores import CONFIG, dataset, scores
from training.measure.evaluate import evaluate
from training.measure.figures import Arrangement, ClassFigures, ClipResults, Evaluation, Honesty
from training.tables import MAX_CONFUSED, MAX_LABELS, evaluation_tables, figure

HONESTY = Honesty(
    clips=tuple(
        Arrangement(name=name, accuracy=0.5, drop=0.25, interval=(0.1, 0.4))
        for name in ("shuffled", "reversed", "frozen", "one frame")
    ),
    sentences=("clips: shuffling the frames costs 0.250 [0.100, 0.400]: this model uses their order",),
)


def printed(found: Evaluation) -> str:
    console = Console(width=80, file=StringIO(), record=True)
    for part in evaluation_tables(found, title="model on clips"):
        console.print(part)
    return console.export_text()


def an_evaluation() -> Evaluation:
    """Of twelve clips in six groups: one wrong, where the baseline has three wrong."""
    data = dataset("abcabcabcabc", groups="uuvvwwxxyyzz")
    return evaluate(
        data,
        data.examples(range(12)),
        scores("abcabcabcabb"),
        scores("aaaabcabcabb", frames="..xxxx"),
        config=CONFIG,
        frame_alone=scores("aaaaaaaaaaaa", frames="......"),
        honesty=HONESTY,
    )


def of_labels(labels: tuple[str, ...]) -> Evaluation:
    """Nothing but clips of these labels, the first of which is called for all."""
    rows = tuple(ClassFigures(label=label, support=1, precision=0.5, recall=0.5, f1=0.5) for label in labels)
    confusion = tuple(tuple(int(called == 0) for called in range(len(labels))) for _ in labels)
    clips = ClipResults(
        num=len(labels), accuracy=0.5, top5=0.9, macro_f1=0.5, labels=labels, confusion=confusion, classes=rows
    )
    return Evaluation(clips=clips, frames=None)


@pytest.mark.parametrize(
    ("told", "given"),
    [
        ("-", (None,)),
        ("0.813", (0.8131,)),
        ("0.813 [0.75, 0.87]", (0.8131, (0.7511, 0.8681))),
    ],
)
def test_a_figure_stands_before_its_interval(told: str, given: tuple[float | None, ...]) -> None:
    assert figure(*given) == told


def test_a_difference_has_its_sign_and_zero_has_none_in_an_interval() -> None:
    assert figure(0.0139, (-0.001, 0.03), signed=True) == "+0.014 [0.00, 0.03]"


def test_all_of_it_fits_into_80_columns_with_nothing_cut_off() -> None:
    text = printed(an_evaluation())
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_a_lag_behind_both_baselines_still_fits_on_its_line() -> None:
    data = dataset("abcabcabcabc", frames="..xxyyyyxx..")
    wrong, right = scores("bbbbbbbbbbbb", frames="yy......yyyy"), scores("abcabcabcabc", frames="..xxyyyyxx..")
    found = evaluate(data, data.examples(range(12)), wrong, right, config=CONFIG, frame_alone=right)
    leads = [line for line in printed(found).splitlines() if line.split()[:1] == ["lead"]]
    assert len(leads) == 4 and all(line.count("[-") == line.count("]") == 2 for line in leads)


def test_the_model_stands_beside_its_baselines_and_its_lead_below() -> None:
    lines = printed(an_evaluation()).splitlines()
    head = next(number for number, line in enumerate(lines) if "clips: 12" in line)
    assert lines[head].split()[2:] == ["model", "mean", "pool", "frame", "alone"]
    assert lines[head + 2].split()[:2] == ["accuracy", "0.917"]
    assert "lead" in lines[head + 3] and "+0.167" in lines[head + 3] and "+0.583" in lines[head + 3]


def test_what_a_person_asks_first_stands_first() -> None:
    text = printed(an_evaluation())
    order = ["6 groups", "clips: 12", "frames: 72", "segments: 24", "does it use time?", "be believed?", "how soon?"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "this model uses their" in text


def test_parts_without_figures_are_left_out() -> None:
    text = printed(of_labels(("a", "b")))
    assert "clips: 2" in text
    for part in ("frames", "segments", "use time", "believed", "how soon", "lead", "mean pool"):
        assert part not in text


def test_top_5_is_told_only_where_it_tells_something() -> None:
    assert "top 5" in printed(of_labels(tuple("abcdef")))
    assert "top 5" not in printed(of_labels(tuple("abcde")))


def test_few_labels_are_a_matrix_and_many_the_pairs_taken_for_one_another() -> None:
    few, many = (
        printed(of_labels(tuple(f"label {n}" for n in range(num)))) for num in (MAX_CONFUSED, MAX_CONFUSED + 1)
    )
    assert "j label 9" in few and "times" not in few
    assert "times" in many


def test_of_very_many_labels_the_worst_are_shown_and_the_rest_is_not_forgotten() -> None:
    text = printed(of_labels(tuple(f"label {n}" for n in range(MAX_LABELS + 5))))
    assert f"{MAX_LABELS} of {MAX_LABELS + 5} labels" in text


def test_a_label_is_shown_as_it_is_written() -> None:
    assert "[red]stop[/red]" in printed(of_labels(("[red]stop[/red]", "go")))
