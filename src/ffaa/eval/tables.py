"""The tables of a result: Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence

from ffaa.data.stats import Table, markdown
from ffaa.eval.bootstrap import Estimate
from ffaa.eval.result import Level, Result, RowFigures

COLUMNS = (
    "set", "row", "real", "fake", "acc", "acc_low", "acc_high", "auc", "auc_low", "auc_high", "ap", "balanced_acc",
    "real_acc", "fake_acc", "eer", "tpr_at_1", "tpr_at_5", "ece", "brier", "unread", "refused", "acc_answered",
    "undefined",
)  # fmt: skip


FEW = 10


def number(value: float | None) -> str:
    """Three decimals; '-' for None."""
    return "-" if value is None else f"{value:.3f}"


def spread(value: float | None, low: float | None, high: float | None) -> str:
    """A figure with its interval."""
    return "-" if value is None else f"{value:.3f} [{number(low)}, {number(high)}]"


def too_few(least: int) -> list[str]:
    """A warning where the smallest set and label has so few photos that intervals, drawn within it, mean little."""
    if least >= FEW:
        return []
    return [f"(!) The smallest set and label has {least} photos, fewer than {FEW}: intervals are too narrow; with one "
            "photo each they have no width at all."]  # fmt: skip


def _estimate(found: Estimate) -> str:
    return spread(found.value, found.low, found.high)


def overview(found: Result) -> Table:
    """As the paper's Table 2: a line per row, ACC / AUC / AP per set and pool, sACC."""
    sizes = [f"{name} ({group.real}:{group.fake})" for name, group in found.groups.items()]
    rows = []
    for row in found.row_names:
        cells = [group.rows[row] for group in found.groups.values()]
        rows.append([row, *(" / ".join(map(number, (c.acc, c.auc, c.ap))) for c in cells), _estimate(found.sacc[row])])
    missing = sorted({m.undefined for group in found.groups.values() for m in group.rows.values() if m.undefined})
    notes = ["ACC / AUC / AP; in brackets a set's real:fake photos, and behind sACC its 95 % interval."]
    return Table("Sets", ["", *sizes, "sACC"], rows, notes + [f"-: {text}." for text in missing])


def pools(found: Result) -> Table:
    """The pools in detail: a line per pool and row."""
    head = ["pool", "", "ACC", "AUC", "AP", "balanced ACC", "EER", "TPR at 1 % FPR", "at 5 %", "ECE", "Brier", "unread"]
    rows = [[name, row, *_detail(group.rows[row])] for name, group in found.pools.items() for row in found.row_names]
    least = min(count for group in found.sets.values() for count in (group.real, group.fake) if count)
    notes = ["In brackets: percentile bootstrap 95 % intervals.", *too_few(least)]
    return Table("Pools", head, rows, notes)


def _detail(of: RowFigures) -> list[str]:
    auc = "-" if of.auc_interval is None else spread(of.auc, *of.auc_interval)
    rest = (of.ap, of.balanced_acc, of.eer, of.tpr_at_1, of.tpr_at_5, of.ece, of.brier)
    return [spread(of.acc, *of.acc_interval), auc, *map(number, rest), str(of.unread)]


def refusals(found: Result) -> Table:
    """Where a detector declined to answer."""
    rows = [
        [name, row, str(of.refused), str(of.unread), spread(of.acc, *of.acc_interval), number(of.acc_answered)]
        for name, group in found.groups.items()
        for row, of in group.rows.items()
        if of.refused
    ]
    head = ["set", "", "refused", "unread", "ACC", "ACC without refusals"]
    notes = ["A refusal counts as wrong in ACC. Without refusals the photos are others than those of other detectors."]
    return Table("Refusals", head, rows, notes)


def thresholds(found: Result) -> Table:
    """ACC per pool at each threshold."""
    names = list(dict.fromkeys(name for limits in found.thresholds.values() for name in limits))
    rows = []
    for pool, group in found.pools.items():
        for row in found.row_names:
            limits, acc = found.thresholds[row], group.rows[row].acc_at
            rows.append([pool, row, *(f"{acc[n]:.3f} ({limits[n]:.3f})" if n in limits else "-" for n in names)])
    notes = ["In brackets the threshold. validation: chosen by the detector's maker on validation photos; pooled: one "
             "for all sets, chosen on this benchmark's own validation split; oracle: chosen on ALL itself, so no "
             "result, but the most that any one threshold could give there."]  # fmt: skip
    return Table("ACC by threshold", ["pool", "", *names], rows, notes)


def levels(found: Result) -> Table:
    """Fig. 6: Easy and Hard, before and after MIDS."""
    head = ["set", "detector", "", "photos", "share", "anchor (before)", "majority", "MIDS (after)",
            "MIDS - anchor", "MIDS - majority"]  # fmt: skip

    def line(level: Level) -> list[str]:
        parts = (level.anchor, level.majority, level.mids, level.gain_over_anchor, level.gain_over_majority)
        return [str(level.count), number(level.share.value), *map(_estimate, parts)]

    rows = [
        [name, detector, word, *line(level)]
        for name, group in found.groups.items()
        for detector, answers in group.answers.items()
        for word, level in (("easy", answers.easy), ("hard", answers.hard))
    ]
    notes = ["Easy: the three determinations agree. ACC with 95 % intervals; the differences are paired."]
    return Table("Easy and Hard", head, rows, notes)


def findings(found: Result) -> Table:
    """What is said as a finding, and how often that is wrong."""
    rows = [
        [
            name,
            detector,
            str(of.count),
            number(of.share.value),
            _estimate(of.acc),
            *map(number, (of.accused, of.missed)),
        ]
        for name, group in found.groups.items()
        for detector, answers in group.answers.items()
        if (of := answers.findings) is not None
    ]
    head = ["set", "detector", "findings", "share", "ACC", "of real photos, called fake", "of fakes, called real"]
    notes = ["Every other verdict is worded as uncertain."]
    return Table("Findings", head, rows, notes)


def types(found: Result) -> Table:
    """Forgery-type ACC and what was confused with what, per pool."""
    rows = []
    for name, group in found.pools.items():
        for detector, of in group.answers.items():
            mixed = "; ".join(
                f"{true} -> {said}: {count}"
                for true, row in of.confusion.items()
                for said, count in row.items()
                if true != said
            )
            shares = map(number, (of.type_acc, of.type_acc_of_fakes, of.type_acc_of_caught))
            rows.append([name, detector, *shares, str(of.unparsed_answers), mixed or "-"])
    head = ["pool", "detector", "type ACC", "of fakes", "of caught fakes", "unparsed answers", "confused"]
    return Table("Forgery types", head, rows)


def videos(found: Result) -> Table:
    """Frame and video level, where a video has several frames."""
    rows = [
        [name, row, str(of.video.videos), number(of.acc), number(of.auc), number(of.video.acc), number(of.video.auc)]
        for name, group in found.groups.items()
        for row, of in group.rows.items()
        if of.video is not None
    ]
    head = ["set", "", "videos", "ACC of frames", "AUC", "ACC of videos", "AUC"]
    return Table("Videos", head, rows, ["A video's score is the mean over its frames, fake from 0.5 on."])


def detectors(found: Result) -> Table:
    """What ran, and how fast."""
    rows = [
        [
            name,
            of.kind,
            "-" if of.parameters is None else f"{of.parameters / 1e6:.1f} M",
            str(of.image_size or "-"),
            of.device,
            f"{of.images_per_second:.2f}",
        ]
        for name, of in found.detectors.items()
    ]
    notes = [f"Images per second: model time only, the median batch; batches of {found.batch}."]
    return Table("Detectors", ["", "kind", "parameters", "px", "device", "images / s"], rows, notes)


def tables(found: Result) -> list[Table]:
    """All tables that have a line."""
    every = (overview, pools, refusals, thresholds, levels, findings, types, videos, detectors)
    return [table for table in (make(found) for make in every) if table.rows]


def as_markdown(found: Result) -> str:
    """All tables, GitHub style."""
    return markdown(tables(found))


def as_csv(found: Result) -> str:
    """One line per set or pool and row, figures with four decimals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, group in found.groups.items():
        for row in found.row_names:
            of = group.rows[row]
            flat = of.model_dump() | {"set": name, "row": row}
            flat |= dict(zip(("acc_low", "acc_high"), of.acc_interval, strict=True))
            flat |= dict(zip(("auc_low", "auc_high"), of.auc_interval or (None, None), strict=True))
            values = [flat[column] for column in COLUMNS]
            writer.writerow([f"{v:.4f}" if isinstance(v, float) else v for v in values])
    return text.getvalue()


def cells_as_csv(shown: Table) -> str:
    """A table's cells."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([shown.header, *shown.rows])
    return text.getvalue()


def as_html(shown: Sequence[Table]) -> str:
    """Tables as an HTML fragment."""
    parts = []
    for table in shown:
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in table.rows
        )
        notes = "".join(f"<p>{html.escape(note)}</p>\n" for note in table.notes)
        parts.append(
            f"<h2>{html.escape(table.title)}</h2>\n<div class='wide'><table>\n<tr>{head}</tr>\n{rows}</table></div>\n"
            + notes
        )
    return "".join(parts)
