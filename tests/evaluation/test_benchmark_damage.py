"""Tests of damage in the file of any benchmark: few damaged rows are reported, more refuse the file."""

import json

import pytest
from made_sets import LAYOUTS, LETTERS, entries_for, lines, many, medqa, sheet

from minifleming.evaluation.benchmarks import read_set
from minifleming.run.errors import BadInput

LINES = [name for name, row in LAYOUTS.items() if row[1].endswith(".jsonl") or name == "medmcqa"]
OBJECTS = [name for name in LAYOUTS if name not in ("cmexam", "mmlu", "medbullets columns")]
OPTIONAL = {"metamap_phrases", "meta_info", "id", "context_len", "explanation", "facts", "patient", "exp", "topic_name",
            "subject_name", "choice_type", "cot_content", "category", "src", "question_id", "exam_id", "year",
            "unique_id", "medical_task", "body_system", "question_type", "link", "diagId", "score", "analysis",
            "LABELS", "MESHES", "YEAR", "LONG_ANSWER", "context"}


def rows_of(layout: str, records) -> list[dict]:
    return list(records.values()) if layout == "pubmedqa" else records


@pytest.mark.parametrize("layout", OBJECTS)
def test_every_needed_field_is_needed(layout, read):
    """Without it, or with a value of another type, the row gives no item and is reported by its line."""
    names = set(rows_of(layout, many(layout, 1))[0]) - OPTIONAL
    failed = []
    assert names
    for name in sorted(names):
        for value in ("absent", 3.25, [[]], {"A": 1}, True):
            if (layout, name, value) == ("medxpertqa list", "options", "absent"):
                continue  # the question's text has them as well
            records = many(layout)
            row = rows_of(layout, records)[6]
            row.pop(name) if value == "absent" else row.update({name: value})
            items, unusable = read(layout, records)
            said = unusable[0].reason == f"missing '{name}'" or value != "absent" or (
                (layout, name) == ("medxpertqa", "options"))
            if len(items) != 119 or [r.row for r in unusable] != [7] or not said:
                failed.append((name, value, unusable))
    assert failed == []


def test_other_fields_may_be_missing(read):
    for layout in OBJECTS:
        for name in sorted(set(rows_of(layout, many(layout, 1))[0]) & (OPTIONAL - {"context"})):
            records = many(layout, 9)
            for row in rows_of(layout, records):
                del row[name]
            assert len(read(layout, records)[0]) == 9, (layout, name)


def test_nul_and_half_characters(tmp_path):
    failed = []
    for layout in OBJECTS:
        set_name, name, _, text_of = LAYOUTS[layout]
        for text, reason in (("a\0b", "holds a NUL"), ("half \ud83e", "or half a character")):
            records = many(layout)
            row = rows_of(layout, records)[3]
            field = next(field for field in ("question", "QUESTION", "final_question") if field in row)
            row[field] = text + row[field]
            (tmp_path / name).write_text(text_of(records).replace("\ud83e", "\\ud83e"), encoding="utf-8")
            items, unusable = read_set(set_name, tmp_path / name)
            if len(items) != 119 or unusable[0].row != 4 or reason not in unusable[0].reason:
                failed.append((layout, text, unusable))
    assert failed == []


def test_bytes_in_a_table_that_are_no_text(put):
    for layout, line in (("mmlu", 6), ("cmexam", 22)):
        for data, reason in ((b"a\0b", "holds a NUL"), (b"\xff\xfe", "not UTF-8 text"), (b"\xed\xa0\xbe", "not UTF-8")):
            path = put(layout, many(layout))
            path.write_bytes(path.read_bytes().replace(b"of 5", b"of 5" + data, 1))
            items, unusable = read_set(layout, path)
            assert (len(items), unusable[0].row) == (119, line) and reason in unusable[0].reason


BAD_LINES = [(b'{"question": "\xff"}', "not UTF-8 text"), (b'{"question": ', "not valid JSON"),
             (b"[1]", "not a JSON object"), (b"null", "not a JSON object"), (b"[" * 100_000, "not valid JSON"),
             (b'{"n": ' + b"9" * 5000 + b"}", "not valid"), (b"\0", "not valid JSON"), (b"{}", "missing '")]


def test_a_line_that_is_no_object(put):
    failed = []
    for layout in LINES:
        path = put(layout, many(layout))
        rows = path.read_bytes().split(b"\n")
        for line, reason in BAD_LINES:
            path.write_bytes(b"\n".join([*rows[:10], line, *rows[10:]]))
            items, unusable = read_set(LAYOUTS[layout][0], path)
            if (len(items), [row.row for row in unusable]) != (120, [11]) or not unusable[0].reason.startswith(reason):
                failed.append((layout, reason, unusable))
            path.write_bytes(b"\n" + line + b"\n" + rows[0])
            with pytest.raises(BadInput, match=rf"{path.name}:2: {reason}.* \(1 of 2 rows are damaged\)|ambiguous"):
                read_set(LAYOUTS[layout][0], path)
    assert failed == []


def test_more_than_one_per_cent_of_damage_refuses_the_file(put):
    for n, damaged, refused in [(100, 1, False), (99, 1, True), (200, 2, False), (200, 3, True), (1, 1, True),
                                (1000, 10, False), (1000, 11, True)]:
        records = medqa(entries_for("medqa", n))
        for row in records[n - damaged:]:
            del row["answer"]
        path = put("medqa", records)
        if refused:
            place = rf"test\.jsonl:{n - damaged + 1}: missing 'answer' \({damaged} of {n} rows are damaged\)"
            with pytest.raises(BadInput, match=place):
                read_set("medqa", path)
        else:
            items, unusable = read_set("medqa", path)
            assert len(items) == n - damaged and [r.row for r in unusable] == list(range(n - damaged + 1, n + 1))


def test_an_empty_option_or_question_gives_no_item_and_is_no_damage(read):
    records = medqa(entries_for("medqa", 10))
    records[0]["question"] = " \n"
    records[3]["options"]["A" if records[3]["answer_idx"] != "A" else "B"] = " "
    items, unusable = read("medqa", records)
    assert len(items) == 8 and [row.row for row in unusable] == [1, 4]
    assert [row.reason for row in unusable] == ["'id' and 'question' must not be empty",
                                                "every option must be a non-empty text"]


def test_no_row_at_all_or_none_that_can_be_used(put, tmp_path):
    with pytest.raises(BadInput, match=r"test\.jsonl: no rows"):
        read_set("medqa", put("medqa", []))
    records = medqa(entries_for("medqa", 3))
    with pytest.raises(BadInput, match=r"test\.jsonl: no usable row; the first: every option must be"):
        read_set("medqa", put("medqa", [r | {"options": r["options"] | {"D": ""}, "answer_idx": "A",
                                             "answer": r["options"]["A"]} for r in records]))


def test_too_few_or_too_many_options_and_other_labels_than_a_to_d(read):
    records = medqa(entries_for("medqa", 120))
    labels = [*LETTERS, "AA", "AB", "AC", "[", "\\"]
    for names in (labels[:0], labels[:1], labels[:27], labels[:30], "BCDE", "ABCE", "abcd", "1234", ["A", "B", "C", "D "]):
        records[1] = records[0] | {"options": {name: f"o{name}" for name in names}, "answer_idx": "A", "answer": "oA"}
        items, unusable = read("medqa", records)
        assert len(items) == 119 and [row.row for row in unusable] == [2], names
        assert len(names) != 4 or unusable[0].reason.startswith("the labels of 'options' are not A, B, C")


def test_a_label_out_of_range_or_no_label(read):
    records = medqa(entries_for("medqa", 120))
    for label in ["E", "", "a", "AB", 0, 1, True, None, float("nan"), ["A"]]:
        records[1]["answer_idx"] = label
        items, unusable = read("medqa", records)
        assert len(items) == 119 and unusable[0].reason == "'answer_idx' is no label of the 4 options", label


def test_files_that_hold_no_benchmark(tmp_path):
    """Each is refused in one line that names the file."""
    reasons = {None: "No such file", b"": "no rows|not valid JSON", b"\xef\xbb\xbf": "no rows|not valid",
               b"PK\x03\x04": r"a spreadsheet \(\.xlsx\)", b"\xff\xfe{\0": "not UTF-8|columns|no rows",
               b"\x80" * 300: "not UTF-8|columns|no rows", b"[" * 100_000: "not valid JSON|1 columns|no rows",
               b"3": "not a JSON|1 columns|no rows", b'"': "not valid"}
    for set_name, name, *_ in LAYOUTS.values():
        for data, reason in reasons.items():
            (tmp_path / name).unlink(missing_ok=True)
            if data is not None:
                (tmp_path / name).write_bytes(data)
            with pytest.raises(BadInput, match=reason) as caught:
                read_set(set_name, tmp_path / name)
            assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_is_no_file(tmp_path):
    for layout in set(LAYOUTS) - {"mmlu"}:
        with pytest.raises(BadInput, match="Is a directory"):
            read_set(LAYOUTS[layout][0], tmp_path)


def test_documents_without_rows_and_rows_of_a_document_by_their_number(put):
    for layout, empty in (("pubmedqa", []), ("jmed", {})):
        with pytest.raises(BadInput, match="no rows"):
            read_set(layout, put(layout, empty))
        records = many(layout, 5)
        records["998" if layout == "pubmedqa" else 2] = ["no object"]
        with pytest.raises(BadInput, match=rf"{LAYOUTS[layout][1]}: row 3: not a JSON object \(1 of 5 rows"):
            read_set(layout, put(layout, records))


def test_a_listed_row_of_pubmedqa_that_is_damaged_is_reported(put, tmp_path):
    (tmp_path / "test_ground_truth.json").write_text(json.dumps({"1000": "yes", "999": "no"}))
    items, unusable = read_set("pubmedqa_test", put("pubmedqa", many("pubmedqa") | {"999": None}))
    assert [item.id for item in items] == ["pubmedqa:1000"]
    assert [(row.row, row.id) for row in unusable] == [(2, "pubmedqa:999")]


def test_an_id_that_is_no_text_or_number_is_damage(read):
    for value in (True, 1.5, ["x"], {}):
        records = many("careqa")
        records[5]["unique_id"] = value
        items, unusable = read("careqa", records)
        assert [(row.row, row.reason) for row in unusable] == [(6, "'unique_id' must be a text or a whole number")]


def test_a_table_of_crlf_and_one_of_lines_that_hold_commas(tmp_path):
    rows = [["q, one", "1,5", "\"2\"", "3\r\n4", "5", "B"]]
    (tmp_path / "a.csv").write_text(sheet(rows), newline="")
    items, _ = read_set("mmlu", tmp_path / "a.csv")
    assert list(items[0].options.values()) == ["1,5", '"2"', "3\r\n4", "5"]


def test_text_is_split_into_lines_at_line_ends_only(tmp_path):
    made = entries_for("medqa", 6)
    for entry in made:
        entry.question = "one\u2028two\x85three\x0cfour"
    (tmp_path / "t.jsonl").write_text(lines(medqa(made)).replace(', "answer', ',\r"answer'), "utf-8", newline="")
    assert [item.question for item in read_set("medqa", tmp_path / "t.jsonl")[0]] == [made[0].question] * 6
