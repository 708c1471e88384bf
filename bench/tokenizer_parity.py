"""A real tokenizer here and in transformers: `python bench/tokenizer_parity.py --tokenizer DIR --texts FILES --out F`

Takes every text of the JSON and JSONL files (values of any depth, the longest of each row first, in turn from each
file so that no file crowds out another), and counts those whose ids are transformers' and which come back unchanged
(up to the tokenizer's own Unicode normalisation, NFC for Qwen). Needs transformers (`pip install -e '.[parity]'`).
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from minifleming.lm.tokenizer import Tokenizer
from minifleming.run.errors import BadInput, Parser, run_cli


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="tokenizer_parity.py", description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    import transformers

    ours, theirs = Tokenizer(args.tokenizer), transformers.AutoTokenizer.from_pretrained(args.tokenizer)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*(texts(path) for path in args.texts)))
    chosen = list(itertools.islice(dict.fromkeys(text for text in in_turn if text), args.count))
    if not chosen:
        raise BadInput("--texts: no texts in these files")
    result = {"texts": len(chosen), "chinese": sum(any("\u4e00" <= c <= "\u9fff" for c in text) for text in chosen),
              "tokens": 0, "equal_ids": 0, "round_trips": 0, "date": date.today().isoformat(),
              "transformers": transformers.__version__}
    for text in chosen:
        ids = ours.encode(text)
        result["tokens"] += len(ids)
        result["equal_ids"] += ids == theirs(text, add_special_tokens=False)["input_ids"]
        result["round_trips"] += ours.decode(ids) == unicodedata.normalize("NFC", text)
    print(json.dumps(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if result["equal_ids"] == result["round_trips"] == len(chosen) else 1


def texts(path: Path) -> Iterator[str]:
    """Every text of a file's rows."""
    content = path.read_text(encoding="utf-8")
    try:
        rows = json.loads(content)
    except ValueError:
        rows = [json.loads(line) for line in content.splitlines() if line.strip()]
    for row in rows.values() if isinstance(rows, dict) else rows:
        yield from sorted(strings(row), key=len, reverse=True)


def strings(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
