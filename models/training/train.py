"""Train a network; started again with the same folder, it goes on from its checkpoint.

Usage::

    python train.py RUN_FOLDER --songs SONGS_FOLDER [--validation HELDOUT_FOLDER]

The run folder gets `checkpoint.pt`, `history.json` (every loss, and the scores of the validation)
and `curves.png`.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from configuration import Configuration, Training, read_configuration
from curves import draw_curves
from evaluation.scores import average, score, separation
from losses import LOSSES
from machine import prepare, processor
from mixing import Examples
from network import build
from places import CONFIGURATION
from songs import load_song, song_folder, song_paths
from synth import SAMPLE_RATE, SOURCES, TRAINING
from torch.utils.data import DataLoader, Subset

from stemlab import AudioStemSeparator

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.json"
CURVES = "curves.png"
_log = logging.getLogger("train")


class Trainer:
    """Network, running mean of its weights, optimiser and history, saved together."""

    def __init__(self, configuration: Configuration, device: str = "cpu") -> None:
        self.configuration = configuration
        self.device = torch.device(device)
        settings = configuration.training
        torch.manual_seed(settings.seed)
        self.network = build(configuration.model).to(self.device)
        self.averaged = copy.deepcopy(self.network).eval()
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), settings.learning_rate, betas=settings.betas
        )
        self.history: dict[str, Any] = {"loss": [], "validation": [], "seconds": 0.0, "runs": []}

    @property
    def settings(self) -> Training:
        """The table [training]."""
        return self.configuration.training

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.history["loss"])

    def train_step(self, stems: torch.Tensor) -> float:
        """One step on a batch (batch, sources, 2, samples); returns the loss."""
        started = time.perf_counter()
        stems = stems.to(self.device)
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate(self.step)
        estimates = self.network(stems.sum(dim=1))
        loss = LOSSES[self.settings.loss](stems, estimates, self.settings.consistency)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        self.optimiser.step()
        self._average_weights()
        self.history["loss"].append(round(float(loss.detach()), 7))
        self.history["seconds"] += time.perf_counter() - started
        return self.history["loss"][-1]

    @torch.no_grad()
    def _average_weights(self) -> None:
        decay = min(self.settings.ema_decay, (2 + self.step) / (11 + self.step))
        pairs = zip(self.averaged.parameters(), self.network.parameters(), strict=True)
        for mean, current in pairs:
            mean.lerp_(current, 1 - decay)

    def save(self, run: Path) -> None:
        """Write checkpoint, history and curves; a half-written checkpoint never takes the name."""
        state = {
            "configuration": asdict(self.configuration),
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "history": self.history,
        }
        unfinished = (run / CHECKPOINT).with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(run / CHECKPOINT)
        (run / HISTORY).write_text(json.dumps(self.history) + "\n", encoding="utf-8")
        draw_curves(self.history, run / CURVES)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; other settings than those it was made with are an error."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        if state["configuration"] != asdict(self.configuration):
            raise ValueError(f"{path} was made with other settings. Choose another run folder.")
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.history = state["history"]


def batches(
    configuration: Configuration, songs: Path, steps: range, workers: int = 0
) -> DataLoader[torch.Tensor]:
    """The batches of some steps, made by worker processes where there are any."""
    examples = Subset(Examples(configuration, songs), steps)
    return DataLoader(examples, batch_size=None, num_workers=workers)


def train(
    trainer: Trainer, stems: DataLoader[torch.Tensor], run: Path, validation: Path | None
) -> None:
    """Train on the batches, with checkpoints and validation as configured and at the end."""
    settings = trainer.settings
    end = trainer.step + len(stems)
    for batch in stems:
        trainer.train_step(batch)
        last = trainer.step == end
        done = trainer.step == settings.steps
        if validation and (trainer.step % settings.validation_steps == 0 or done):
            means = scores_of(trainer, validation)
            scores = {s: round(means[s]["sdr"], 2) for s in SOURCES if s in means}
            trainer.history["validation"].append([trainer.step, scores])
            _log.info("step %d: validation SDR %s", trainer.step, scores)
        if trainer.step % settings.checkpoint_steps == 0 or last:
            trainer.save(run)
            recent = float(np.mean(trainer.history["loss"][-settings.checkpoint_steps :]))
            spent = trainer.history["seconds"]
            _log.info("step %d, %.0f s, loss %.4f", trainer.step, spent, recent)


def scores_of(trainer: Trainer, folder: Path) -> dict[str, Any]:
    """Scores of the averaged weights, mean over the beginnings of held-out songs."""
    samples = int(trainer.settings.validation_seconds * SAMPLE_RATE)
    network = copy.deepcopy(trainer.averaged).cpu()
    separate = separation(AudioStemSeparator(network, device="cpu"))
    songs = (load_song(path, 0, samples) for path in song_paths(folder))
    return average(score(separate, stems) for stems in songs)


def circumstances(device: str, start: int) -> dict[str, Any]:
    """Where and with what a run, or a part of it, was trained."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()
    return {
        "from_step": start,
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the checkpoint")
    parser.add_argument("--songs", type=Path, required=True, help="missing ones are synthesised")
    parser.add_argument("--validation", type=Path, help="folder of held-out songs")
    parser.add_argument("--configuration", type=Path, default=CONFIGURATION)
    parser.add_argument("--until", type=int, help="stop after this step, to go on another time")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="processes that mix examples")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    prepare(options.threads)
    configuration = read_configuration(options.configuration)
    validation = song_folder(options.validation, TRAINING) if options.validation else None
    if validation and not song_paths(validation):
        parser.error(f"{validation} holds no songs; synthesise.py makes them.")
    options.run.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(configuration, options.device)
    if (options.run / CHECKPOINT).exists():
        trainer.load(options.run / CHECKPOINT)
        _log.info("going on from step %d", trainer.step)
    trainer.history["runs"].append(circumstances(options.device, trainer.step))
    until = min(options.until or configuration.training.steps, configuration.training.steps)
    stems = batches(configuration, options.songs, range(trainer.step, until), options.workers)
    train(trainer, stems, options.run, validation)


if __name__ == "__main__":
    main()
