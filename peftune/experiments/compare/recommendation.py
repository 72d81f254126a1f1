"""Which strategy to use, in one sentence that claims no more than the figures do."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from peftune.baselines.baseline import Baseline, best_baseline
from peftune.experiments.compare.summary import Difference, Matched, Standing, Summary, each_of_two
from peftune.stats.crossed import FEWEST_SEEDS
from peftune.stats.formats import listed, size, with_interval

_ACCURACY, _BYTES, _FORGETTING = "accuracy", "artifact_bytes", "forgetting."
_PAIR = 2

ONE_SEED = "One seed speaks of these models, not of their strategies"
TWO_SEEDS = "Two seeds cannot show a significant difference; three can"


def answer(summary: Summary) -> str:
    """Return the strategy to use, or why none is named.

    Accuracy comes first, among those that are as accurate forgetting at matched accuracy, and then
    the size of the file. A strategy is named only where three seeds or more, and the rows, show a
    significant difference; wherever accuracies are given, so is what was forgotten for them.

    Args:
        summary: everything but its own `answer`.
    """
    recommended = _recommended(summary).removesuffix(".")
    return "; ".join([recommended, *_collapsed(summary.standings)]) + "."


def _recommended(summary: Summary) -> str:
    """Return the strategy to use, by means that may include a collapsed seed."""
    learned = [one for one in summary.standings if one.learned]
    baseline = best_baseline(summary.baselines)
    if not summary.standings:
        return "No run finished, so there is nothing to compare."
    if not learned:
        return _nothing_learned(summary)
    if baseline is not None and not any(_beats(one, summary) for one in learned):
        return _no_better_than(baseline, learned, summary)
    parts = _only(learned[0], summary) if len(learned) == 1 else _leading(learned, summary)
    return "; ".join([*parts, *_shortfalls(learned, summary)]) + "."


def _leading(learned: Sequence[Standing], summary: Summary) -> list[str]:
    """Set the most accurate strategy against the others, as far as that is fair."""
    leader, others = learned[0], learned[1:]
    pairs = [_pair(summary, leader, other) for other in others]
    if not any(pair.ranked for pair in pairs):
        return _unfair(learned, pairs, summary)
    shared = [_shared_seeds(leader, other) for other in others]
    fair = [pair.ranked and seeds >= FEWEST_SEEDS for pair, seeds in zip(pairs, shared, strict=True)]  # fmt: skip
    if not any(fair):
        return (
            _two_seeds(learned, summary) if max(shared) == _PAIR else _one_seed(learned, summary)
        )
    compared = [other for other, kept in zip(others, fair, strict=True) if kept]
    level = [other for other in compared if not _pair(summary, leader, other).significant]
    parts = _tie([leader, *level], summary) if level else _use(leader, compared, summary)
    if aside := [other.strategy for other, kept in zip(others, fair, strict=True) if not kept]:
        parts.append(f"{listed(aside)} cannot be ranked beside it")
    return parts


def _nothing_learned(summary: Summary) -> str:
    majority = [
        baseline
        for baseline in summary.baselines
        if baseline.name == "majority" and baseline.accuracy
    ]
    shown = (
        f" (always giving the most frequent label has an accuracy of {majority[0].accuracy:.3f})"
        if majority
        else ""
    )
    return f"Nothing was learned: no strategy does clearly better than can be done without reading a row{shown}, so there is none to use, and what they forgot says nothing."


def _no_better_than(baseline: Baseline, learned: Sequence[Standing], summary: Summary) -> str:
    leader = learned[0]
    few = {1: ONE_SEED, _PAIR: TWO_SEEDS}.get(len(leader.seeds))
    ending = "" if few is None else f"; {_first_down(few)}"
    who = "No strategy" if few is None else "None of these models"
    also = "".join(f"; {part}" for part in _forgotten(learned, summary))
    return f"{who} clearly beats the baseline {baseline.title} (accuracy {baseline.accuracy:.3f}): the most accurate, {leader.strategy}, reaches {_accuracy(leader)}, so the baseline is the cheaper choice until there is more to learn from{also}{ending}."


def _only(leader: Standing, summary: Summary) -> list[str]:
    if len(summary.standings) == 1:
        return [
            f"Only {leader.strategy} was run: its accuracy is {_accuracy(leader)}{_file_of(leader)}",
            *_forgotten([leader], summary),
            "a comparison takes two strategies",
        ]
    few = {
        1: ", though with one seed",
        _PAIR: ", though with two seeds, and it takes three to tell",
    }
    seeds = few.get(len(leader.seeds), "")
    return [
        f"Use {leader.strategy}, the only one that learned the task{seeds}: its accuracy is {_accuracy(leader)}{_file_of(leader)}",
        *_forgotten([leader], summary),
    ]


def _unfair(
    learned: Sequence[Standing], pairs: Sequence[Difference], summary: Summary
) -> list[str]:
    why = (pairs[0].reason or "").split("; ")[0].removeprefix("not ranked: ")
    return [
        f"No strategy is named, for the comparison is not an equal one: {why}",
        f"the accuracies are {_accuracies(learned)}",
        *_forgotten(learned, summary),
    ]


def _one_seed(learned: Sequence[Standing], summary: Summary) -> list[str]:
    reading = _readings(learned, summary)
    also = [f"forgetting {reading[0]} ({reading[1]})"] if reading else _forgotten(learned, summary)
    return [
        f"{ONE_SEED}: {', '.join([f'accuracy {_accuracies(learned)}', *also])}",
        "compare three seeds or more",
    ]


def _two_seeds(learned: Sequence[Standing], summary: Summary) -> list[str]:
    """Return the figures of each of two seeds."""
    return [
        f"{TWO_SEEDS}: accuracy {_accuracies(learned)}",
        *_forgotten(learned, summary),
        "add a third seed; the finished runs are kept",
    ]


def _use(leader: Standing, others: Sequence[Standing], summary: Summary) -> list[str]:
    behind = listed([f"{one.strategy} ({_mean(one):.3f})" for one in others])
    parts = [
        f"Use {leader.strategy}: its accuracy, {_accuracy(leader)}, is clearly above that of {behind}{_file_of(leader)}"
    ]
    reading = _readings([leader, *others], summary)
    if reading is None:
        return [*parts, *_forgotten([leader, *others], summary)]
    matched = summary.matched[0]
    names = [one.strategy for one in others]
    less = [name for name in names if _forgets_less(matched, name, leader.strategy)]
    more = [name for name in names if _forgets_less(matched, leader.strategy, name)]
    if less:
        parts.append(f"but {reading[0]} {listed(less)} {_forget(less)} less ({reading[1]})")
    elif len(more) == len(names):
        parts.append(f"{reading[0]} it also forgets least ({reading[1]})")
    else:
        parts.append(f"{reading[0]} none is shown to forget less ({reading[1]})")
    return parts


def _tie(level: Sequence[Standing], summary: Summary) -> list[str]:
    names = [one.strategy for one in level]
    first = f"{names[0]} is the most accurate, {_accuracy(level[0])}, but {_accuracies(level[1:])} {'is' if len(level) == _PAIR else 'are'} not significantly different from it"
    if len({f"{_mean(one):.3f}" for one in level}) == 1:
        first = f"{listed(names)} are equally accurate: {_accuracies(level)}"
    parts = [first, *_would_be_seen(level, summary)]
    reading = _readings(level, summary)
    if reading is None:
        parts += _forgotten(level, summary)
    else:
        matched = summary.matched[0]
        worse = [b for b in names if any(_forgets_less(matched, a, b) for a in names)]
        best = [name for name in names if name not in worse]
        if worse and best and all(_forgets_less(matched, a, b) for a in best for b in worse):
            parts.append(
                f"{reading[0]} {listed(best)} {_forget(best)} less than {listed(worse)} ({reading[1]}), so use {listed(best, 'or')}{_files(best, level)}"
            )
            return parts
        differs = (
            "differs significantly between only some of them"
            if worse
            else "does not differ significantly either"
        )
        parts.append(f"what they forget {reading[0]} {differs} ({reading[1]})")
    return [*parts, *_sizes(level)]


def _sizes(level: Sequence[Standing]) -> list[str]:
    """Name the strategy with the smallest file, to the digits that are shown."""
    sizes = {
        one.strategy: size(found)
        for one in sorted(level, key=lambda one: one.figures[_BYTES].mean or 0.0)
        if (found := one.figures[_BYTES].mean) is not None
    }
    if not sizes:
        return []
    least = next(iter(sizes.values()))
    smallest = [name for name, found in sizes.items() if found == least]
    if len(smallest) == len(sizes) > 1:
        return [f"their files are of one size, {least}"]
    rest = [f"{name} {found}" for name, found in sizes.items() if found != least]
    beside = f" ({', '.join(rest)})" if rest else ""
    what = "file is that" if len(smallest) == 1 else "files are those"
    return [f"the smallest {what} of {listed(smallest)}, {least}{beside}"]


def _would_be_seen(level: Sequence[Standing], summary: Summary) -> list[str]:
    """Return what the pair nearest to a significant difference would take; nothing without a spread."""
    pairs = [_pair(summary, level[0], other) for other in level[1:]]
    known = [pair for pair in pairs if pair.detectable is not None]
    if not known:
        return []
    nearest = min(known, key=lambda pair: pair.seeds_needed or inf)
    these = next(one for one in level[1:] if one.strategy in {nearest.first, nearest.second})
    seeds = _shared_seeds(level[0], these)
    between = f" between {level[0].strategy} and {these.strategy}" if len(pairs) > 1 else ""
    more = nearest.reason
    if nearest.seeds_needed is not None:
        more = f"about {nearest.seeds_needed:,} seeds would show {abs(nearest.mean):.3f}"
    return [
        f"with {seeds} seeds a difference in accuracy of {nearest.detectable:.3f}{between} would mostly be seen, and {more}"
    ]


def _shortfalls(learned: Sequence[Standing], summary: Summary) -> list[str]:
    """Name the strategies that do not clearly beat the baselines, and those that learned nothing."""
    parts, best = [], best_baseline(summary.baselines)
    to_beat = best and f"the baseline {best.title} ({best.accuracy:.3f})"
    if best is not None and (
        weak := [one.strategy for one in learned if not _beats(one, summary)]
    ):
        verb = "does" if len(weak) == 1 else "do"
        parts.append(f"{listed(weak)} {verb} not clearly beat {to_beat}")
    ahead = {
        one.strategy: one
        for one in summary.against_baseline
        if one.beats and one.metric == "macro_f1"
    }
    if best is not None and (by_f1 := [one.strategy for one in learned if one.strategy in ahead]):
        gains = " and ".join(f"{ahead[name].mean:+.3f}" for name in by_f1)
        parts.append(
            f"{listed(by_f1)} beat{'s' * (len(by_f1) == 1)} {to_beat} in macro F1 ({gains}), not in accuracy"
        )
    if idle := [one.strategy for one in summary.standings if not one.learned]:
        parts.append(f"{listed(idle)} learned nothing")
    return parts


def _collapsed(standings: Sequence[Standing]) -> list[str]:
    """Name the seeds that give nearly every row one label."""
    return [
        f"seed {seed.seed} of {one.strategy} collapsed: it says '{seed.label}' for {seed.rows}, and the figures of {one.strategy} include it"
        for one in standings
        for seed in one.collapsed
    ]


def _beats(standing: Standing, summary: Summary) -> bool:
    """Return whether a strategy is clearly above the best baseline, on the same rows."""
    return any(one.beats for one in summary.against_baseline if one.strategy == standing.strategy)


def _pair(summary: Summary, first: Standing, second: Standing) -> Difference:
    names = {first.strategy, second.strategy}
    return next(
        pair
        for pair in summary.differences
        if pair.key == _ACCURACY and {pair.first, pair.second} == names
    )


def _shared_seeds(first: Standing, second: Standing) -> int:
    return len(set(first.seeds) & set(second.seeds))


def _readings(standings: Sequence[Standing], summary: Summary) -> tuple[str, str] | None:
    """Return the equal accuracy, and each strategy's forgetting on the first probe there."""
    if not summary.matched:
        return None
    matched = summary.matched[0]
    known = [
        f"{one.strategy} {mean:+.3f}"
        for one in standings
        if (mean := matched.forgetting[one.strategy].mean) is not None
    ]
    if len(known) < _PAIR:
        return None
    return (
        f"at an equal accuracy of {matched.accuracy:.3f}",
        f"{matched.probe}: {', '.join(known)}",
    )


def _forgotten(standings: Sequence[Standing], summary: Summary) -> list[str]:
    """Return each strategy's forgetting on the first probe, as measured; nothing without a probe."""
    keys = [key for one in summary.standings for key in one.figures if key.startswith(_FORGETTING)]
    if not keys:
        return []
    known = [
        f"{one.strategy} {_shown(one, keys[0], '+.3f')}"
        for one in standings
        if one.figures[keys[0]].mean is not None
    ]
    return [f"forgetting on {keys[0].removeprefix(_FORGETTING)} {listed(known)}"] if known else []


def _forgets_less(matched: Matched, first: str, second: str) -> bool:
    """Return whether the first forgets significantly less than the second."""
    for pair in matched.differences:
        if {pair.first, pair.second} == {first, second} and pair.significant and pair.ranked:
            return (pair.mean < 0) == (pair.first == first)
    return False


def _forget(names: Sequence[str]) -> str:
    return "forgets" if len(names) == 1 else "forget"


def _mean(standing: Standing) -> float:
    return standing.figures[_ACCURACY].mean or 0.0


def _accuracy(standing: Standing) -> str:
    return _shown(standing, _ACCURACY, ".3f")


def _shown(standing: Standing, key: str, form: str) -> str:
    """Give a mean with its interval; of two seeds, each instead of the mean."""
    figure = standing.figures[key]
    if both := each_of_two(figure):
        return "/".join(f"{value:{form}}" for value in both)
    return with_interval(figure.mean, figure.ci95, form)


def _accuracies(standings: Sequence[Standing]) -> str:
    return listed([f"{one.strategy} {_accuracy(one)}" for one in standings])


def _file_of(standing: Standing) -> str:
    found = standing.figures[_BYTES].mean
    return "" if found is None else f", and its file takes {size(found)}"


def _files(names: Sequence[str], level: Sequence[Standing]) -> str:
    sizes = [one.figures[_BYTES].mean for one in level if one.strategy in names]
    known = [size(one) for one in sizes if one is not None]
    return f" (a file of {listed(known, 'or')})" if known else ""


def _first_down(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]
