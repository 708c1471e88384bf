"""[1/10] The whole recipe (Fig. 2): items, cold start, two-stage GRPO, evaluation of four variants.

Stages that the run folder already holds are reused. This is the only module that knows more than
one of the packages cold_start, rlvr and evaluation.
"""

from __future__ import annotations

from pathlib import Path

from minifleming.cold_start import sft
from minifleming.cold_start.refine import collect_oracle_traces
from minifleming.cold_start.trace import Trace, read_traces, write_traces
from minifleming.evaluation.evaluate import evaluate, read_records, write_records
from minifleming.evaluation.tables import VARIANTS, write_ablation
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_for_inference, load_for_training, model_folder
from minifleming.rlvr import train
from minifleming.rods import synthesize
from minifleming.rods.item import Item
from minifleming.rods.readers import load_graph
from minifleming.rods.synthesize import EVALUATED, Question, Splits, blind_accuracy
from minifleming.run import distributed
from minifleming.run.checkpoint import verify_folder
from minifleming.run.errors import BadInput
from minifleming.run.fields import Config
from minifleming.run.run_folder import RunFolder


class Recipe:
    """The stages of Fig. 2 in one run folder."""

    def __init__(self, cfg: Config, start: Path | None = None):
        """``start``: another run's checkpoint to continue from, if the folder has none."""
        self.cfg, self.start = cfg, start
        self.run = RunFolder(cfg)
        self.folder = self.run.path
        self.base = model_folder(cfg.model.base)
        self.tokenizer = Tokenizer(self.base)
        self.graph = load_graph(cfg.data.graph, cfg.data.columns) if cfg.data.graph else None

    def run_all(self) -> str:
        """Run the stages that are missing; return the ablation table (Table 4)."""
        self.run.open(self.base)
        splits = self.items()
        evaluated = synthesize.check_disjoint(splits, self.folder / "items")
        start = self.cold_start(splits["train"], evaluated)
        state = self.reinforce(start, splits["train"])
        variants = self.variants(start, state)
        records = self.evaluate_all(variants, splits)
        return self.report(records, splits) if distributed.rank() == 0 else ""

    def items(self) -> Splits:
        """Train, heldout and longer_hops: given files, or synthesized from the graph (§3.1)."""
        home, data = self.folder / "items", self.cfg.data
        if distributed.rank() == 0 and not (home / "longer_hops.jsonl").exists():
            made = synthesize.read_given(data) if data.train_file else self.synthesize()
            synthesize.check_disjoint(made, data.train_file)
            synthesize.write_splits(home, made)
        distributed.barrier()
        return synthesize.read_splits(home)

    def synthesize(self) -> Splits:
        """Disjoint splits from the graph, in the wording that the configuration asks for."""
        if self.graph is None:
            raise BadInput("data.graph: must not be empty when there are no item files")
        return synthesize.synthesize_splits(self.cfg.data, self.graph, self.cfg.run.seed)

    def cold_start(self, items: list[Item], evaluated: set[Question]) -> Path:
        """The model folder that reinforcement learning starts from: fine-tuned on traces (§3.2)."""
        folder = self.folder / "cold_start"
        if not self.cfg.cold_start.enabled:
            return self.base
        if verify_folder(folder) is None:
            sft.remove_checkpoints(folder)  # a kill may have left them
            return folder
        traces = self.traces(items)
        for trace in traces:
            if synthesize.question_of(trace) in evaluated:
                raise BadInput(f"the trace of '{trace.item}' tells an item that is evaluated",
                               self.cfg.cold_start.traces_file)
        if self.run.holds("checkpoints"):
            raise BadInput("missing or damaged, but reinforcement learning has begun; "
                           "choose another run.out",
                           folder)
        with self.run.journal.timed("cold_start"):
            sft.fine_tune(self.base, traces, folder, self.cfg, self.run.device, self.run.journal)
        return folder

    def traces(self, items: list[Item]) -> list[Trace]:
        """The given traces, or those that the graph oracle writes."""
        cfg = self.cfg.cold_start
        if cfg.traces_file:
            return read_traces(Path(cfg.traces_file))
        if self.graph is None:
            raise BadInput("cold_start.traces_file: needed without a graph")
        traces = collect_oracle_traces(items, self.graph, cfg, self.cfg.run.seed)
        if distributed.rank() == 0:
            write_traces(self.folder / "traces.jsonl", traces)
        return traces

    def reinforce(self, start: Path, items: list[Item]) -> train.State:
        """Train stage 1 to its plateau, then mine and train stage 2 in rounds (§3.3)."""
        model = load_for_training(start, self.cfg, self.run.device)
        return train.train(self.cfg, model, self.tokenizer, items, self.folder, self.start)

    def variants(self, start: Path, state: train.State) -> dict[str, Path]:
        """The model folders of the rows of Table 4."""
        checkpoints = self.folder / "checkpoints"
        found = {"base": self.base, "cold_start": start,
                 "rl_stage1": checkpoints / f"step_{state.stage1_end:06d}" / "model",
                 "rl_stage2": checkpoints / f"step_{state.step:06d}" / "model"}
        if not self.cfg.cold_start.enabled:
            del found["cold_start"]
        return {name: found[name] for name in VARIANTS if name in found}

    def evaluate_all(self, variants: dict[str, Path], splits: Splits) -> dict:
        """The records of each variant and evaluated split (§4)."""
        records = {}
        for variant, folder in variants.items():
            for split in EVALUATED:
                if split in splits:
                    records[variant, split] = self.evaluate(variant, folder, split, splits[split])
        return records

    def evaluate(self, variant: str, folder: Path, split: str, items: list[Item]) -> list[dict]:
        path = self.folder / "eval" / f"{variant}.{split}.jsonl"
        if path.exists():
            return read_records(path)
        with self.run.journal.timed("eval", variant=variant, split=split):
            model = load_for_inference(folder, self.cfg, self.run.device)
            records = evaluate(model, self.tokenizer, items, self.cfg, name=f"{variant} {split}",
                               graph=self.graph)
        if distributed.rank() == 0:
            write_records(path, records)
        distributed.barrier()
        return records

    def report(self, records: dict, splits: Splits) -> str:
        """Write Table 4 and the HTML pages; return the table."""
        from minifleming.extras.reports.report import write_run_pages

        blind, confidence = {}, self.cfg.eval.confidence
        for name in EVALUATED:
            if name in splits:
                blind[name] = blind_accuracy(splits["train"], splits[name])
        table = write_ablation(self.folder / "report", records, confidence, blind)
        write_run_pages(self.folder, records, confidence, table)
        return table
