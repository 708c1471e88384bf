"""What a file may have wrong, in any set: few damaged rows are told, more refuse the file, nothing is read wrongly."""

import json

import pytest
from made_sets import LAYOUTS, LETTERS, lines, medqa, pubmedqa, sheet
from test_sets_layouts import entries_for

from minifleming.evaluation.sets.read import read_set
from minifleming.run.errors import BadInput

LINES = [name for name, row in LAYOUTS.items() if row[1].endswith(".jsonl") or name == "medmcqa"]
OPTIONAL = {"metamap_phrases", "meta_info", "id", "context_len", "explanation", "facts", "patient", "exp", "topic_name",
            "subject_name", "choice_type", "cot_content", "category", "src", "question_id", "exam_id", "year",
            "unique_id", "medical_task", "body_system", "question_type", "link", "diagId", "score", "analysis",
            "LABELS", "MESHES", "YEAR", "LONG_ANSWER", "context"}
OBJECTS = [name for name in LAYOUTS if name not in ("cmexam", "mmlu", "medbullets columns")]


def records_of(layout: str, n: int):
    return LAYOUTS[layout][2](entries_for(layout, n))


def rows_of(layout: str, records) -> list[dict]:
    return list(records.values()) if layout == "pubmedqa" else records


@pytest.mark.parametrize("layout", OBJECTS)
def test_every_field_that_is_needed_is_needed(layout, read):
    """Without it, or with a value of another type, the row gives no item, and the row is named."""
    names = rows_of(layout, records_of(layout, 1))[0]
    assert set(names) - OPTIONAL
    for name in sorted(set(names) - OPTIONAL):
        for value in ("absent", 3.25, [[]], {"A": 1}, True):
            if (layout, name, value) == ("medxpertqa list", "options", "absent"):
                continue  # they stand in the question's text as well
            records = records_of(layout, 120)
            row = rows_of(layout, records)[6]
            row.pop(name) if value == "absent" else row.update({name: value})
            items, unusable = read(layout, records)
            assert len(items) == 119 and [r.row for r in unusable] == [7], (name, value)
            if value == "absent" and (layout, name) != ("medxpertqa", "options"):
                assert unusable[0].reason == f"missing '{name}'"


@pytest.mark.parametrize("layout", OBJECTS)
def test_a_field_that_is_not_needed_may_be_absent(layout, read):
    for name in sorted(set(rows_of(layout, records_of(layout, 1))[0]) & (OPTIONAL - {"context"})):
        records = records_of(layout, 9)
        for row in rows_of(layout, records):
            del row[name]
        assert len(read(layout, records)[0]) == 9


@pytest.mark.parametrize("text, reason", [("a\0b", "holds a NUL"), ("half \ud83e", "or half a character")])
@pytest.mark.parametrize("layout", OBJECTS)
def test_nul_and_half_characters(layout, text, reason, tmp_path):
    _, name, _, text_of = LAYOUTS[layout]
    for field in ("question", "QUESTION", "final_question"):
        records = records_of(layout, 120)
        row = rows_of(layout, records)[3]
        if field in row:
            row[field] = text + row[field]
            (tmp_path / name).write_bytes(text_of(records).encode("utf-8", "surrogatepass") if "\0" in text else
                                          text_of(records).replace("\ud83e", "\\ud83e").encode())
            items, unusable = read_set(LAYOUTS[layout][0], tmp_path / name)
            assert len(items) == 119 and unusable[0].row == 4 and reason in unusable[0].reason


@pytest.mark.parametrize("layout", ["mmlu", "cmexam"])
@pytest.mark.parametrize("data, reason", [(b"a\0b", "holds a NUL"), (b"\xff\xfe", "not UTF-8 text"),
                                          ("\ud83e".encode("utf-8", "surrogatepass"), "not UTF-8 text")])
def test_bytes_in_a_table_that_are_no_text(layout, data, reason, put):
    path = put(layout, records_of(layout, 120))
    path.write_bytes(path.read_bytes().replace(b"of 5", b"of 5" + data, 1))
    items, unusable = read_set(layout, path)
    assert len(items) == 119 and [reason in row.reason for row in unusable] == [True]
    assert unusable[0].row == (6 if layout == "mmlu" else 22)


@pytest.mark.parametrize("layout", LINES)
@pytest.mark.parametrize("line, reason", [
    (b'{"question": "\xff"}', "not UTF-8 text"), (b'{"question": ', "not valid JSON"), (b"[1]", "not a JSON object"),
    (b"null", "not a JSON object"), (b"[" * 100_000, "not valid JSON"), (b'{"n": ' + b"9" * 5000 + b"}", "not valid"),
    (b"\0", "not valid JSON"), (b"{}", "missing '"),
])
def test_a_line_that_is_no_object(layout, line, reason, put):
    path = put(layout, records_of(layout, 120))
    rows = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*rows[:10], line, *rows[10:]]))
    items, unusable = read_set(LAYOUTS[layout][0], path)
    assert len(items) == 120 and [row.row for row in unusable] == [11] and unusable[0].reason.startswith(reason)
    path.write_bytes(b"\n" + line + b"\n" + rows[0])
    with pytest.raises(BadInput, match=rf"{path.name}:2: {reason}.* \(1 of 2 rows are damaged\)|ambiguous"):
        read_set(LAYOUTS[layout][0], path)


@pytest.mark.parametrize("n, damaged, refused", [(100, 1, False), (99, 1, True), (200, 2, False), (200, 3, True),
                                                 (1, 1, True), (1000, 10, False), (1000, 11, True)])
def test_more_than_one_per_cent_of_damage_refuses_the_file(n, damaged, refused, put):
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


@pytest.mark.parametrize("count", [0, 1, 27, 30])
def test_too_few_or_too_many_options(count, read):
    labels = [*LETTERS, "AA", "AB", "AC", "[", "\\"][:count]
    records = medqa(entries_for("medqa", 120))
    records[1] |= {"options": {label: f"o{label}" for label in labels}, "answer_idx": "A", "answer": "oA"}
    items, unusable = read("medqa", records)
    assert len(items) == 119 and [row.row for row in unusable] == [2]


@pytest.mark.parametrize("labels", ["BCDE", "ABCE", "abcd", "1234", ["A", "B", "C", "D "]])
def test_labels_that_are_not_a_to_d(labels, read):
    records = medqa(entries_for("medqa", 120))
    records[1] |= {"options": dict(zip(labels, "wxyz")), "answer_idx": labels[1], "answer": "x"}
    items, unusable = read("medqa", records)
    assert len(items) == 119 and unusable[0].reason.startswith("the labels of 'options' are not A, B, C")


@pytest.mark.parametrize("label", ["E", "", "a", "AB", 0, 1, True, None, float("nan"), ["A"]])
def test_a_label_out_of_range_or_no_label(label, read):
    records = medqa(entries_for("medqa", 120))
    records[1]["answer_idx"] = label
    items, unusable = read("medqa", records)
    assert len(items) == 119 and unusable[0].reason == "'answer_idx' is no label of the 4 options"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("data, reason", [
    (None, "No such file"), (b"", r"no (rows|column)|not valid JSON"), (b"\xef\xbb\xbf", r"no (rows|column)|not valid"),
    (b"PK\x03\x04", r"a spreadsheet \(\.xlsx\) or an archive"), (b"\xff\xfe{\0", "not UTF-8|columns|no column"),
    (b"\x80" * 300, "not UTF-8|no column"), (b"[" * 100_000, "not valid JSON|1 columns|no column"),
    (b"3", "not a JSON|1 columns|no column"), (b'"', "not valid"),
])
def test_files_that_hold_no_set(layout, data, reason, tmp_path):
    set_name, name, *_ = LAYOUTS[layout]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BadInput, match=reason) as caught:
        read_set(set_name, tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "mmlu"])
def test_a_folder_is_no_file(layout, tmp_path):
    with pytest.raises(BadInput, match="Is a directory"):
        read_set(LAYOUTS[layout][0], tmp_path)


@pytest.mark.parametrize("layout, value", [("pubmedqa", []), ("jmed", {})])
def test_a_document_of_the_other_kind(layout, value, put):
    with pytest.raises(BadInput, match="not a JSON (object|list)"):
        read_set(layout, put(layout, value))


@pytest.mark.parametrize("layout", ["pubmedqa", "jmed"])
def test_rows_of_a_document_are_named_by_their_number(layout, put):
    records = records_of(layout, 5)
    if layout == "pubmedqa":
        records["998"] = ["no object"]
    else:
        records[2] = "no object"
    with pytest.raises(BadInput, match=rf"{LAYOUTS[layout][1]}: row 3: not a JSON object \(1 of 5 rows"):
        read_set(layout, put(layout, records))


def test_a_listed_row_of_pubmedqa_that_is_damaged_is_told(put, tmp_path):
    records = pubmedqa(entries_for("pubmedqa", 120))
    (tmp_path / "test_ground_truth.json").write_text(json.dumps({"1000": "yes", "999": "no"}))
    items, unusable = read_set("pubmedqa_test", put("pubmedqa", records | {"999": None}))
    assert [item.id for item in items] == ["pubmedqa:1000"]
    assert [(row.row, row.id) for row in unusable] == [(2, "pubmedqa:999")]


@pytest.mark.parametrize("value", [True, 1.5, ["x"], {}])
def test_an_id_that_is_none_is_damage(value, read):
    records = LAYOUTS["careqa"][2](entries_for("careqa", 120))
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
