"""Tables of the miniature benchmark in Markdown, from its records."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from midway.errors import MidwayError
from midway.evals.metrics.bootstrap import Estimate, Row, difference, estimate
from midway.paper.miniature.arms import ABLATIONS, ARMS, Arm, arms_by_name
from midway.paper.miniature.cells import all_cells, arms_of, chosen_trials, num_seeds
from midway.paper.miniature.measures import CHOOSING, MEASURES
from midway.paper.miniature.protocol import DATASETS, Dataset, Protocol
from midway.paper.miniature.records import Record

BEGIN, END = "<!-- tables -->", "<!-- end of the tables -->"
"""Lines of the page between which the tables stand."""
NOT_RUN = "not run"
TITLES: dict[Dataset, str] = {"camvid": "CamVid", "synthetic": "Synthetic world"}
CLAIMS = (
    ("near", "dino"),
    ("near", "untrained"),
    ("flow", "dino"),
    ("flow", "untrained"),
    ("masks", "dino"),
    ("masks", "untrained"),
    ("linear", "croco"),
    ("linear", "untrained"),
    ("knn", "croco"),
    ("knn", "untrained"),
    ("windows", "dino"),
    ("windows", "untrained"),
    ("window_patches", "croco"),
    ("window_patches", "dino"),
    ("window_patches", "untrained"),
    ("window_patches", "filters"),
)
"""Measures and arms that test the paper's claim about one network: it exceeds DINO and no training
in motion, and CroCo and no training in recognition. In windows DINO and random filters are
controls; arms without class token are compared without it."""


def page(text: str, parts: Mapping[str, tuple[Sequence[Record], Protocol]]) -> str:
    """Return the text of a page with the tables of some records in their place.

    Args:
        text: The page.
        parts: Records of each protocol by its title, which is empty for the first.

    Raises:
        MidwayError: The page has no place for them.

    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise MidwayError(f"page: has no lines {BEGIN} and {END}; add them where tables belong")
    found = "\n".join(tables(*each, title=title) for title, each in parts.items())
    return f"{before}{BEGIN}\n\n{found}\n{END}{after}"


def tables(records: Sequence[Record], protocol: Protocol, *, title: str = "") -> str:
    """Return all tables of a protocol."""
    start = f"{title}: " if title else ""
    parts = [*([f"## {title}"] if title else []), _state(records, protocol)]
    arms = arms_of(protocol, ARMS)
    for dataset in DATASETS:
        is_empty = bool(title) and not _of(records, dataset)
        shown = "No cell has been run." if is_empty else _scores(records, dataset, arms, protocol)
        parts += [f"### {start}{TITLES[dataset]}", shown]
    parts += [f"### {start}Midway beside the others", _comparisons(records)]
    if len(protocol.trials) > 1:
        parts += ["### Trials", _trials(records, protocol)]
    for dataset in DATASETS:
        if any(arm.name in _of(records, dataset) for arm in ABLATIONS):
            heading = f"### Tables 3 and 5 of the paper: {TITLES[dataset]}"
            rows = (arms_by_name()["base"], *ABLATIONS[:-4], arms_by_name()["midway"])
            parts += [heading, _scores(records, dataset, (*rows, *ABLATIONS[-4:]), protocol)]
    if any(record.purpose == "flow" for record in records):
        parts += ["### Flow after finetuning on the synthetic world", _flow(records, protocol)]
    return "".join(f"{part}\n\n" for part in parts).rstrip() + "\n"


def _state(records: Sequence[Record], protocol: Protocol) -> str:
    names = {arm.name for arm in ARMS}
    cells, done = (
        [each for each in some if each.purpose == "report" and each.arm in names]
        for some in (all_cells(protocol, {}), records)
    )
    failed = sum(bool(record.failure) for record in records if record.purpose == "report")
    return (
        f"Protocol `{protocol.hash()}`: {len(done)} of {len(cells)} reported cells are done, "
        f"{failed} of them failed."
    )


def _of(records: Iterable[Record], dataset: str) -> dict[str, list[Record]]:
    """Return the reported records of a dataset by arm, in the order of the arms."""
    found: defaultdict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.purpose == "report" and record.dataset == dataset:
            found[record.arm].append(record)
    return {name: found[name] for name in arms_by_name() if found[name]}


def _seeds(records: Iterable[Record], name: str) -> list[list[Row]]:
    """Return the rows of a measure by seed, of the cells that did not fail."""
    return [record.rows[name] for record in records if name in record.rows]


def _scores(
    records: Sequence[Record], dataset: Dataset, arms: Sequence[Arm], protocol: Protocol
) -> str:
    by_arm = _of(records, dataset)
    names = [
        name
        for name in MEASURES
        if any(name in record.rows for each in by_arm.values() for record in each)
    ]
    header = ["arm", "n", "failed"]
    header += [f"{MEASURES[name].title}: {MEASURES[name].unit}" for name in names]
    rows = [
        [
            arm.title,
            f"{len(by_arm.get(arm.name, []))} of {num_seeds(arm, protocol)}",
            str(sum(bool(record.failure) for record in by_arm.get(arm.name, []))),
            *(
                _cell(_seeds(by_arm[arm.name], name), name) if arm.name in by_arm else NOT_RUN
                for name in names
            ),
            _seconds(arm, by_arm.get(arm.name, [])),
        ]
        for arm in arms
    ]
    return _markdown([*header, "training, s"], rows)


def _cell(seeds: Sequence[Sequence[Row]], name: str) -> str:
    if not seeds:
        return ""
    return _interval(estimate(seeds), name)


def _interval(found: Estimate, name: str) -> str:
    return f"{_shown(found.mean, name)} ({_shown(found.low, name)} to {_shown(found.high, name)})"


def _seconds(arm: Arm, records: Sequence[Record]) -> str:
    return f"{fmean(r.seconds['train'] for r in records):.0f}" if arm.is_trained and records else ""


def _shown(value: float, name: str) -> str:
    """Return a ratio in the unit of its measure."""
    return f"{MEASURES[name].scale * value:.{1 if MEASURES[name].scale == 100 else 2}f}"


def _comparisons(records: Sequence[Record]) -> str:
    rows = []
    for dataset in DATASETS:
        by_arm = _of(records, dataset)
        for name, other in CLAIMS:
            ours, others = (_seeds(by_arm.get(arm, []), name) for arm in ("midway", other))
            if not ours or not others:
                continue
            own, its = estimate(ours), estimate(others)
            between = difference(ours, others)
            is_better = (own.mean < its.mean) == MEASURES[name].is_error
            side = "ahead" if is_better else "behind"
            rows.append(
                [
                    TITLES[dataset],
                    f"{MEASURES[name].title}: {MEASURES[name].unit}",
                    arms_by_name()[other].title,
                    f"{own.num_seeds}, {its.num_seeds}",
                    _interval(between, name),
                    "intervals touch" if own.touches(its) else f"{side}, intervals do not touch",
                ]
            )
    header = ["dataset", "measure", "compared with", "n", "difference (Midway - other)", "result"]
    return _markdown(header, rows)


def _flow(records: Sequence[Record], protocol: Protocol) -> str:
    """Return a row for each arm and a column for each rate."""
    rows, rates = [], range(len(protocol.flow_rates))
    for arm in ARMS:
        found = [
            record for record in records if record.purpose == "flow" and record.arm == arm.name
        ]
        if found:
            by_rate = [[record for record in found if record.rate == rate] for rate in rates]
            cells = [_cell(_seeds(each, "finetuned"), "finetuned") for each in by_rate]
            counts = ", ".join(str(len(each)) for each in by_rate)
            rows.append([arm.title, counts, *cells])
    header = [f"rate {rate:g}: {MEASURES['finetuned'].unit}" for rate in protocol.flow_rates]
    return _markdown(["arm", "n", *header], rows)


def _trials(records: Sequence[Record], protocol: Protocol) -> str:
    chosen, rows = chosen_trials(records, protocol), []
    for arm in ARMS:
        found = {r.trial: r for r in records if r.purpose == "choose" and r.arm == arm.name}
        if not found:
            continue
        scores = [
            NOT_RUN
            if (record := found.get(trial)) is None
            else record.failure or ", ".join(f"{record.scores[n]:.1f}" for n in CHOOSING)
            for trial in range(len(protocol.trials))
        ]
        best = chosen.get(arm.name)
        rows.append([arm.title, *scores, "" if best is None else _rate(protocol, best)])
    header = [_rate(protocol, trial) for trial in range(len(protocol.trials))]
    return _markdown(["arm", *header, "chosen"], rows)


def _rate(protocol: Protocol, trial: int) -> str:
    each = protocol.trials[trial]
    return f"rate {each.lr:g}, momentum {each.momentum:g}, temperature {each.temperature:g}"


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
