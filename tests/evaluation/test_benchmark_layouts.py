"""Tests of every benchmark reader: what is written in a layout is what is read."""

import json

from made_sets import LAYOUTS, differences, entries_for, many

from minifleming.evaluation.benchmarks import BENCHMARKS, read_set
from minifleming.rods.item import LABELS, read_items, write_items

WIDE = ["medqa", "medqa with context", "cmexam", "mmlu_pro", "medxpertqa", "medxpertqa list", "medxpertqa inline",
        "medbullets", "medbullets columns", "jmed"]


def test_what_was_written_is_read(read):
    failed = []
    for layout in LAYOUTS:
        for seed in range(3):
            made = entries_for(layout, seed=seed)
            items, unusable = read(layout, LAYOUTS[layout][2](made))
            failed += differences(layout, items, made) + unusable
    assert failed == []


def test_three_to_ten_options_under_the_same_layout(read):
    failed = []
    for layout in WIDE:
        for count in (5,) if layout not in WIDE[3:7] else (3, 5, 7, 10):
            made = entries_for(layout, options=count)
            items, unusable = read(layout, LAYOUTS[layout][2](made))
            failed += differences(layout, items, made) + unusable
            if {item.labels for item in items} != {LABELS[:count]} or (
                    layout in WIDE[3:7] and {item.answer for item in items} != set(LABELS[:count])):
                failed.append(f"{layout}: labels of {count} options")
    assert failed == []


def contents(items) -> list[tuple]:
    return [(item.id, item.question, item.options, item.answer) for item in items]


def test_byte_order_mark_and_line_ends_do_not_matter(put):
    """CRLF between rows; a cell that has line ends of its own is read alike too."""
    failed = []
    for layout in LAYOUTS:
        path = put(layout, LAYOUTS[layout][2](entries_for(layout)))
        plain, _ = read_set(LAYOUTS[layout][0], path)
        data = path.read_bytes()
        for changed in (b"\xef\xbb\xbf" + data, data.replace(b"\n", b"\r\n"), data.rstrip(b"\n")):
            path.write_bytes(changed)
            items, unusable = read_set(LAYOUTS[layout][0], path)
            if unusable or contents(items) != contents(plain):
                failed.append((layout, changed[:8]))
    assert failed == []


def test_blank_lines_do_not_matter(put):
    for layout in (name for name, row in LAYOUTS.items() if row[1].endswith((".jsonl", ".csv"))):
        path = put(layout, LAYOUTS[layout][2](entries_for(layout, 5)))
        plain, _ = read_set(LAYOUTS[layout][0], path)
        lines = path.read_text(encoding="utf-8")
        path.write_text("\n" + lines + "\n\n", encoding="utf-8")
        items, _ = read_set(LAYOUTS[layout][0], path)
        assert [item.id for item in items] == [item.id for item in plain], layout


def test_every_item_survives_our_own_file(read, tmp_path):
    for layout in LAYOUTS:
        items, _ = read(layout, LAYOUTS[layout][2](entries_for(layout)))
        write_items(tmp_path / "items.jsonl", items)
        assert read_items(tmp_path / "items.jsonl") == items, layout


def test_white_space_is_removed_at_the_ends_and_nowhere_else(read):
    for layout in LAYOUTS:
        made = entries_for(layout, 8)
        for entry in made:
            entry.question = "\u3000 " + entry.question.replace(" ", "  ") + " \t"
            if layout not in ("pubmedqa", "medxpertqa inline", "cmexam"):
                entry.options = [f" {text} \u00a0" for text in entry.options]
        items, _ = read(layout, LAYOUTS[layout][2](made))
        for item, entry in zip(items, made, strict=True):
            assert item.question.endswith(entry.question.strip()) and item.question == item.question.strip()
            assert sorted(item.options.values()) == sorted(text.strip() for text in entry.options)


def test_no_explanation_reaches_an_item(read):
    for layout in LAYOUTS:
        for item in read(layout, many(layout, 60))[0]:
            text = json.dumps([item.question, item.options, item.provenance])
            assert "because" not in text and "It does" not in text and "explanation" not in text


def test_every_benchmark_has_a_layout_here():
    assert {row[0] for row in LAYOUTS.values()} == {row.name or name for name, row in BENCHMARKS.items()}
