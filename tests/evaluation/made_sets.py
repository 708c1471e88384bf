"""Files of invented questions in the layout of each public set, written from one plain list of them.

    Entry("Which mineral of 3 ...?", ["zinc", "iron", ...], gold=1)

`WRITERS[name](entries)` gives the text of a file. The writers know nothing of the readers.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass

import numpy as np

WORDS = ["zinc", "iron", "copper, \"pure\"", "β-carotene", "α, 5 %", "A", "(C)", "none of the above", "B 12",
         "x\u2028y", "钙", "镁 (Mg)", "1.5", "yes", "D, E", "potassium 🩺", "sodium", "<0.1", "E. coli", "a\tb"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass
class Entry:
    question: str
    options: list[str]
    gold: int


def entries(n: int, options: int = 4, seed: int = 0) -> list[Entry]:
    """n questions with different options each; every gold comes up where n is large enough."""
    rng = np.random.default_rng([seed, n, options])
    made = []
    for i in range(n):
        chosen = [WORDS[k] for k in rng.choice(len(WORDS), options, replace=False)]
        made.append(Entry(f"Which mineral, \"of {i}\",\tis 对 — {int(rng.integers(1000))}?", chosen, i % options))
    return made


def labelled(entry: Entry) -> dict:
    return dict(zip(LETTERS, entry.options))


def lines(records) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def sheet(rows) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def medqa(made: list[Entry]) -> list[dict]:
    return [{"question": e.question, "answer": e.options[e.gold], "options": labelled(e), "meta_info": "step1",
             "answer_idx": LETTERS[e.gold], "metamap_phrases": ["x"]} for e in made]


def medqa_dev(made: list[Entry]) -> list[dict]:
    return [{"id": i, "question": e.question, "context": ["He came.", "He is ill."], "context_len": 2,
             "options": labelled(e), "answer": e.options[e.gold], "answer_idx": LETTERS[e.gold],
             "explanation": "because", "facts": ["1. ill"], "patient": {"age": "3"}} for i, e in enumerate(made)]


def medmcqa(made: list[Entry], first: int = 1) -> list[dict]:
    return [{"question": e.question, "exp": "because", "cop": e.gold + first,
             **{f"op{c}": text for c, text in zip("abcd", e.options)}, "subject_name": "Anatomy", "topic_name": None,
             "id": f"uuid-{i}", "choice_type": "single"} for i, e in enumerate(made)]


def cmexam(made: list[Entry], mark: str = " ", newline: str = "\n") -> list[list[str]]:
    rows = [[e.question, newline.join(f"{c}{mark}{text}" for c, text in zip(LETTERS, e.options)), LETTERS[e.gold],
             "because", "骨科", "临床医学"] for e in made]
    return [["Question", "Options", "Answer", "Explanation", "Clinical Department", "Medical Discipline"], *rows]


def pubmedqa(made: list[Entry]) -> dict:
    """The options of the entries do not matter here, only the gold of three."""
    return {str(1000 - i): {"QUESTION": e.question, "CONTEXTS": ["We saw ten.", "Nine were well."],
                            "LABELS": ["AIM", "RESULTS"], "MESHES": ["Humans"], "YEAR": "1999",
                            "final_decision": ["yes", "no", "maybe"][e.gold], "LONG_ANSWER": "It does."}
            for i, e in enumerate(made)}


def mmlu(made: list[Entry]) -> list[list[str]]:
    return [[e.question, *e.options, LETTERS[e.gold]] for e in made]


def mmlu_pro(made: list[Entry]) -> list[dict]:
    return [{"question_id": 70 + i, "question": e.question, "options": e.options, "answer": LETTERS[e.gold],
             "answer_index": e.gold, "cot_content": "because", "category": "health", "src": "ori"}
            for i, e in enumerate(made)]


def careqa(made: list[Entry]) -> list[dict]:
    return [{"exam_id": 26.0, "question": e.question, **{f"op{k + 1}": text for k, text in enumerate(e.options)},
             "cop": e.gold + 1.0, "year": 2021.0, "category": "Biology", "unique_id": f"u-{i}"}
            for i, e in enumerate(made)]


def medxpertqa(made: list[Entry]) -> list[dict]:
    return [{"id": f"Text-{i}", "question": e.question, "options": labelled(e), "label": LETTERS[e.gold],
             "medical_task": "Diagnosis", "body_system": "Skin", "question_type": "Reasoning"}
            for i, e in enumerate(made)]


def inline(entry: Entry) -> str:
    return entry.question + "\nAnswer Choices: " + " ".join(f"({c}) {t}" for c, t in labelled(entry).items())


def medxpertqa_list(made: list[Entry]) -> list[dict]:
    return [record | {"question": inline(e), "label": [record["label"]],
                      "options": [{"letter": c, "content": t} for c, t in record["options"].items()]}
            for record, e in zip(medxpertqa(made), made)]


def medxpertqa_inline(made: list[Entry]) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "options"} | {"question": inline(e)}
            for record, e in zip(medxpertqa(made), made)]


def medbullets(made: list[Entry]) -> list[dict]:
    return [{"link": "https://example.org", "question": e.question,
             **{f"op{c}": text for c, text in zip("abcde", e.options)}, "answer_idx": LETTERS[e.gold],
             "answer": e.options[e.gold], "explanation": "because"} for e in made]


def medbullets_columns(made: list[Entry]) -> dict:
    rows = medbullets(made)
    return {name: {str(i): row[name] for i, row in enumerate(rows)} for name in rows[0]}


def jmed(made: list[Entry]) -> list[dict]:
    return [{"diagId": 5000 + i, "final_question": e.question, "score": 1, "analysis": "because",
             "final_options": json.dumps({"options": labelled(e)}, ensure_ascii=False),
             "final_correct_answer": f"['{LETTERS[e.gold]}']"} for i, e in enumerate(made)]


def dump(value) -> str:
    return json.dumps(value, ensure_ascii=False)


# layout -> (name of the set, name of the file, records of the entries, text of the records)
LAYOUTS = {
    "medqa": ("medqa", "test.jsonl", medqa, lines),
    "medqa with context": ("medqa", "dev.jsonl", medqa_dev, lines),
    "medmcqa": ("medmcqa", "dev.json", medmcqa, lines),
    "cmexam": ("cmexam", "val.csv", cmexam, sheet),
    "pubmedqa": ("pubmedqa", "ori.json", pubmedqa, dump),
    "mmlu": ("mmlu", "anatomy_test.csv", mmlu, sheet),
    "mmlu_pro": ("mmlu_pro", "test.jsonl", mmlu_pro, lines),
    "careqa": ("careqa", "test.jsonl", careqa, lines),
    "medxpertqa": ("medxpertqa", "test.jsonl", medxpertqa, lines),
    "medxpertqa list": ("medxpertqa", "test.jsonl", medxpertqa_list, lines),
    "medxpertqa inline": ("medxpertqa", "test.jsonl", medxpertqa_inline, lines),
    "medbullets": ("medbullets", "op4.jsonl", medbullets, lines),
    "medbullets columns": ("medbullets", "op4.json", medbullets_columns, dump),
    "jmed": ("jmed", "jmed.json", jmed, dump),
}


def entries_for(layout: str, n: int = 60, options: int = 4, seed: int = 0) -> list[Entry]:
    """Entries that the layout can hold: three options for PubMedQA, no marks where options are inline."""
    made = entries(n, 3 if layout == "pubmedqa" else options, seed)
    for entry in made:
        if layout == "medxpertqa inline":
            entry.options = [text.replace("(C)", "see C") for text in entry.options]
        if layout == "pubmedqa":
            entry.options = ["yes", "no", "maybe"]
    return made


def many(layout: str, n: int = 120):
    """Records of so many rows that one damaged row is less than one per cent."""
    return LAYOUTS[layout][2](entries_for(layout, n))


def differences(layout: str, items, made: list[Entry]) -> list[str]:
    """Returns what the items do not say as the entries do; empty if all are the same."""
    before = {"medqa with context": "He came. He is ill. ", "pubmedqa": "We saw ten.\nNine were well.\n"}
    found = []
    if [item.question for item in items] != [before.get(layout, "") + entry.question for entry in made]:
        found.append(f"{layout}: questions")
    for item, entry in zip(items, made):
        if item.options[item.answer] != entry.options[entry.gold]:
            found.append(f"{layout}: answer of {item.id}")
        texts = list(item.options.values())
        if texts != entry.options and not (layout == "jmed" and sorted(texts) == sorted(entry.options)):
            found.append(f"{layout}: options of {item.id}")
    return found
