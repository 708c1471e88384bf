"""The whole recipe, stage after stage. What a run folder already holds is reused.

    items -> cold start -> RL stage 1 -> mining -> RL stage 2 -> evaluation of all four variants

It stands with the scripts above the rooms, and is the only place that knows more than one of them.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch

from minifleming import __version__
from minifleming.cold_start import sft
from minifleming.cold_start.checks import Checks
from minifleming.cold_start.oracle import Oracle, has_path
from minifleming.cold_start.refine import collect_traces
from minifleming.cold_start.trace import Trace, read_traces, write_traces
from minifleming.evaluation.evaluate import evaluate, read_records, write_records
from minifleming.evaluation.tables import VARIANTS, write_ablation
from minifleming.lm.tokenizer import Tokenizer
from minifleming.lm.weights import load_for_inference, load_for_training, model_folder
from minifleming.rlvr import train
from minifleming.rods.graph import Graph
from minifleming.rods.item import Item, read_items, write_items
from minifleming.rods.question import ItemBuilder
from minifleming.rods.readers import load_graph
from minifleming.rods.synthesize import (
    Split,
    blind_accuracy,
    builder_from_config,
    needs_wording,
    option_set,
    synthesise,
)
from minifleming.run import config as configuration
from minifleming.run import distributed
from minifleming.run.checkpoint import read_json, sha256, verify_folder, write_text
from minifleming.run.errors import BadInput, RunFailed
from minifleming.run.fields import Config, Data
from minifleming.run.journal import Journal, bar

SPLITS = ("heldout", "longer_hops")


class Run:
    """One run folder: what is in it, and how each missing part is made."""

    def __init__(self, cfg: Config, start: Path | None = None):
        self.cfg, self.start = cfg, start
        self.folder = Path(cfg.run.out)
        self.device = distributed.pick_device(cfg.run.device)
        if cfg.run.threads:
            torch.set_num_threads(cfg.run.threads)
        self.base = model_folder(cfg.model.base)
        self.tokenizer = Tokenizer(self.base)
        self.graph: Graph | None = load_graph(cfg.data.graph, cfg.data.columns) if cfg.data.graph else None
        self.journal = Journal(self.folder)

    def everything(self) -> str:
        """Run what is missing; return the ablation table."""
        self.open()
        splits = self.items()
        start = self.cold_start(splits["train"])
        state = self.reinforce(start, splits["train"])
        return self.report(splits, start, state)

    def open(self) -> None:
        """Create the folder, or make sure that it belongs to this configuration."""
        text, path = configuration.to_toml(self.cfg), self.folder / "config.toml"
        trained = any((self.folder / name).exists() for name in ("cold_start", "checkpoints", "eval"))
        begun = trained or (self.folder / "items").exists()
        distributed.barrier()  # nobody writes before everybody has looked
        if begun and path.exists():
            drift = configuration.differences(configuration.load(path), self.cfg)
            if not trained:  # all that stands there is the items
                drift = [name for name in drift if name.startswith("data.") or name == "run.seed"]
            if drift:
                raise BadInput(f"the run was started with other values of {', '.join(drift)}; choose another run.out",
                               path)
            self._same_threads()
        if trained and path.exists():
            return
        if distributed.rank() == 0:
            write_text(path, text)
            write_text(self.folder / "manifest.json", json.dumps({
                "minifleming": __version__, "torch": torch.__version__, "python": platform.python_version(),
                "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
                "replay_tolerance": 0.0 if self.device.type == "cpu" else 1e-4,  # of the gradient norm, relative
                "threads": torch.get_num_threads(), "device": str(self.device), "world_size": distributed.world_size(),
                "base_sha256": sha256(self.base / "model.safetensors") if (
                    self.base / "model.safetensors").exists() else "",
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
            }, indent=1) + "\n")
        distributed.barrier()

    def _same_threads(self) -> None:
        """The sums of a matrix product depend on the thread count: a resumed run takes that of its start. So do sums
        over ranks, and another device: with these a run is not gone on with."""
        path = self.folder / "manifest.json"
        try:
            manifest = read_json(path)
            threads, ranks, kind = manifest["threads"], manifest["world_size"], manifest["device"].split(":")[0]
        except (BadInput, KeyError, TypeError, AttributeError):
            return
        if (self.folder / "checkpoints").exists() and (ranks, kind) != (distributed.world_size(), self.device.type):
            raise BadInput(f"the run was started on {ranks} ranks ({kind}), this is {distributed.world_size()} "
                           f"({self.device.type}): it could not be replayed", path)
        if not self.cfg.run.threads and self.device.type == "cpu" and type(threads) is int and threads > 0:
            torch.set_num_threads(threads)

    def items(self) -> dict[str, list[Item]]:
        """train, heldout and longer_hops: given files, or synthesised with disjoint combinations of findings."""
        home, data = self.folder / "items", self.cfg.data
        if distributed.rank() == 0 and not (home / "longer_hops.jsonl").exists():
            made = self._read_items() if data.train_file else self._make_items()
            disjoint(made, data.train_file)
            for name, items in made.items():
                write_items(home / f"{name}.jsonl", items)
        distributed.barrier()
        found = {name: read_items(home / f"{name}.jsonl") for name in ("train", *SPLITS)
                 if (home / f"{name}.jsonl").stat().st_size}
        self.tested = disjoint(found, home)
        return found

    def _read_items(self) -> dict[str, list[Item]]:
        data = self.cfg.data
        return {"train": read_items(data.train_file), "heldout": read_items(data.heldout_file), "longer_hops": []}

    def _make_items(self) -> dict[str, list[Item]]:
        data, graph = self.cfg.data, self.graph
        if graph is None:
            raise BadInput("data.graph: must not be empty when there are no item files")
        builder, reject = item_builder(data, graph), support_filter(data)
        made: dict[str, list[Item]] = {}
        taken: set[frozenset[str]] = set()
        for number, (name, count, hops, held_out) in enumerate([
                ("train", data.train, data.hops, False), ("heldout", data.heldout, data.hops, True),
                ("longer_hops", data.num_ood, data.ood_hops, True)]):
            made[name] = synthesise(
                builder, count, hops, seed=10 * self.cfg.run.seed + number, split=Split(name, held_out),
                excluded=taken, reject=reject,
                progress=lambda x, name=name: bar(x, desc=f"items {name}"))
            if len(made[name]) < count:
                raise RunFailed(f"the graph gave {len(made[name])} different {name} items of {count}")
            taken |= {option_set(item) for item in made[name]} if name == "train" else set()
        return made

    def cold_start(self, items: list[Item]) -> Path:
        """The model folder that reinforcement learning starts from."""
        cfg, folder = self.cfg.cold_start, self.folder / "cold_start"
        if not cfg.enabled:
            return self.base
        if verify_folder(folder) is None:
            return folder
        traces = self.traces(items)
        for trace in traces:
            if asked(trace.question, trace.options) in self.tested:
                raise BadInput(f"the trace of '{trace.item}' tells an item that is evaluated", cfg.traces_file)
        if (self.folder / "checkpoints").exists():
            raise BadInput("missing or damaged, but reinforcement learning has begun; choose another run.out", folder)
        with self.journal.timed("cold_start"):
            counts = sft.fine_tune(self.base, traces, folder, self.cfg, self.device, self.journal)
        self.journal.metric(stage="cold_start", step=0, traces=counts["traces"],
                            dropped=counts["dropped"])
        return folder

    def traces(self, items: list[Item]) -> list[Trace]:
        """Given traces, or the oracle's for the items of a share of the root diseases."""
        cfg, path = self.cfg.cold_start, self.folder / "traces.jsonl"
        if cfg.traces_file:
            return read_traces(Path(cfg.traces_file))
        if self.graph is None:
            raise BadInput("cold_start.traces_file: needed when there is no graph to tell paths from")
        mine = [i for i in items if has_path(i, self.graph) and covered(i.provenance["root"], cfg.disease_fraction)][: cfg.traces]
        if not mine:
            raise BadInput("cold_start.disease_fraction: no training item is covered")
        oracle = Oracle(self.graph, cfg.detour_fraction, seed=self.cfg.run.seed)
        told = collect_traces(mine, [oracle], Checks(self.graph), samples=1)
        traces = [one.kept for one in told if one.kept]
        if not traces:
            raise RunFailed(f"none of {len(told)} traces passed its checks")
        if distributed.rank() == 0:
            write_traces(path, traces)
        return traces

    def reinforce(self, start: Path, items: list[Item]) -> train.State:
        model = load_for_training(start, self.cfg, self.device)
        return train.train(self.cfg, model, self.tokenizer, items, self.folder, self.start)

    def report(self, splits: dict[str, list[Item]], start: Path, state: train.State) -> str:
        """Evaluate what has no records yet, and write the tables."""
        checkpoints = self.folder / "checkpoints"
        models = {"base": self.base, "cold_start": start,
                  "rl_stage1": checkpoints / f"step_{state.stage1_end:06d}" / "model",
                  "rl_stage2": checkpoints / f"step_{state.step:06d}" / "model"}
        if not self.cfg.cold_start.enabled:
            del models["cold_start"]
        records = {}
        for variant in (v for v in VARIANTS if v in models):
            for split in (s for s in SPLITS if s in splits):
                records[variant, split] = self.evaluate(variant, models[variant], split, splits[split])
        if distributed.rank() != 0:
            return ""
        blind = {name: blind_accuracy(splits["train"], splits[name]) for name in SPLITS if name in splits}
        from minifleming.extras.reports.report import write_run_pages

        confidence = self.cfg.eval.confidence
        text = write_ablation(self.folder / "report", records, confidence, blind)
        write_run_pages(self.folder, records, confidence, text)
        return text

    def evaluate(self, variant: str, folder: Path, split: str, items: list[Item]) -> list[dict]:
        path = self.folder / "eval" / f"{variant}.{split}.jsonl"
        if path.exists():
            return read_records(path)
        with self.journal.timed("eval", variant=variant, split=split):
            found = evaluate(load_for_inference(folder, self.cfg, self.device), self.tokenizer, items, self.cfg,
                             name=f"{variant} {split}", graph=self.graph)
        if distributed.rank() == 0:
            write_records(path, found)
        distributed.barrier()
        return found


def item_builder(data: Data, graph: Graph) -> ItemBuilder:
    """Returns the builder of the configuration's items. Raises BadInput."""
    make = builder_from_config
    if needs_wording(data):
        from minifleming.extras.wording.from_config import builder_from_config as make
    return make(data, graph)


def support_filter(data: Data) -> Callable[[Item], str]:
    """Returns the filter of items with a distractor that another graph supports."""
    if not data.support_graphs:
        return lambda item: ""
    from minifleming.extras.wording.support import Support

    return Support([load_graph(source) for source in data.support_graphs])


def asked(question: str, options: dict[str, str]) -> tuple[str, frozenset[str]]:
    """What makes two items the same, whatever their ids and the order of their options."""
    return question, frozenset(options.values())


def disjoint(splits: dict[str, list[Item]], place: str | Path) -> set[tuple[str, frozenset[str]]]:
    """What the evaluated splits ask; refused if the training split asks some of it, or shares an id."""
    tested = [item for name in SPLITS for item in splits.get(name, [])]
    ids, questions = {item.id for item in tested}, {asked(item.question, item.options) for item in tested}
    for item in splits["train"]:
        if item.id in ids or asked(item.question, item.options) in questions:
            raise BadInput(f"item '{item.id}' is both trained on and evaluated", place)
    return questions


def covered(root: str, share: float) -> bool:
    """Is this root disease among the share that the cold start sees? A property of its name."""
    return hashlib.sha256(root.encode()).digest()[1] < 256 * share


def checkpoint_argument(text: str) -> Path | None:
    """``--resume``: auto and never are handled by the script; a PATH must be a whole checkpoint."""
    if text in ("auto", "never"):
        return None
    path = Path(text)
    if not (path / "state.json").is_file():
        raise BadInput("no checkpoint; give a folder RUN/checkpoints/step_NNNNNN", path)
    reason = verify_folder(path)
    if reason:
        raise BadInput(reason, path)
    return path
