"""Train a network; started again with the same folder, it goes on from its checkpoint.

Usage::

    python train.py RUN_FOLDER --songs SONGS_FOLDER [--validation HELDOUT_FOLDER]
"""

from __future__ import annotations

import argparse
import copy
import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from configuration import Configuration, Training, read_configuration
from demucs.htdemucs import HTDemucs
from evaluate import average, heldout_songs, mean_sdr, score, separation
from mixing import Mixer, SongPool
from network import build, normalise
from places import CONFIGURATION
from synth import SAMPLE_RATE, SOURCES

from stemlab import AudioStemSeparator

CHECKPOINT = "checkpoint.pt"
_log = logging.getLogger("train")


def loss_of(stems: torch.Tensor, estimates: torch.Tensor, consistency: float) -> torch.Tensor:
    """L1 on waveforms, and how far the estimates are from adding up to the mixture."""
    apart = (estimates - stems).abs().mean()
    left_over = (estimates.sum(dim=1) - stems.sum(dim=1)).abs().mean()
    return apart + consistency * left_over


class Trainer:
    """Network, running mean of its weights, optimiser and random state, saved together."""

    def __init__(self, configuration: Configuration, pool: SongPool) -> None:
        self.configuration = configuration
        settings = configuration.training
        torch.manual_seed(settings.seed)
        self.network = build(configuration.model)
        self.averaged = copy.deepcopy(self.network).eval()
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), settings.learning_rate, betas=settings.betas
        )
        self.rng = np.random.default_rng(settings.seed)
        self.mixer = Mixer(pool, configuration.mixing, self.rng)
        self.step = 0
        self.seconds = 0.0

    @property
    def settings(self) -> Training:
        """The table [training]."""
        return self.configuration.training

    def train_step(self) -> float:
        """One example, one step; returns the loss."""
        started = time.perf_counter()
        stems = self._example()
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate(self.step)
        loss = loss_of(stems, self.network(stems.sum(dim=1)), self.settings.consistency)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip_norm)
        self.optimiser.step()
        self.step += 1
        self._average_weights()
        self.seconds += time.perf_counter() - started
        return float(loss.detach())

    def _example(self) -> torch.Tensor:
        """Stems (1, sources, 2, samples), scaled as the network's input is."""
        seconds = self.rng.choice(self.settings.crop_seconds, p=self.settings.crop_weights)
        while True:
            stems = torch.from_numpy(self.mixer.draw(int(seconds * SAMPLE_RATE)))
            _, mean, deviation = normalise(stems.sum(dim=0))
            if deviation > 1e-3:
                # The mean of the mixture is shared out, so that the stems still add up.
                return ((stems - mean / len(SOURCES)) / deviation)[None]

    @torch.no_grad()
    def _average_weights(self) -> None:
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        pairs = zip(self.averaged.parameters(), self.network.parameters(), strict=True)
        for mean, current in pairs:
            mean.lerp_(current, 1 - decay)

    def save(self, path: Path) -> None:
        """Write a checkpoint; a half-written one never takes the name."""
        state = {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "rng": self.rng.bit_generator.state,
            "step": self.step,
            "seconds": self.seconds,
        }
        unfinished = path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.bit_generator.state = state["rng"]
        self.step, self.seconds = state["step"], state["seconds"]


def validate(network: HTDemucs, songs: list[np.ndarray]) -> str:
    """Scores of the averaged weights on the beginnings of held-out songs, as text."""
    network.eval()
    separate = separation(AudioStemSeparator(network, device="cpu"))
    means = average(score(separate, stems) for stems in songs)
    scores = " ".join(f"{s} {means[s]['sdr']:.2f}" for s in SOURCES if s in means)
    return f"SDR {mean_sdr(means):.2f} ({scores}), residual {means['residual']:.1f} dB"


def train(trainer: Trainer, pool: SongPool, run: Path, songs: list[np.ndarray]) -> None:
    """Train up to the last step of the configuration."""
    settings = trainer.settings
    losses: list[float] = []
    while trainer.step < settings.steps:
        losses.append(trainer.train_step())
        last = trainer.step == settings.steps
        if trainer.step % settings.checkpoint_steps == 0 or last:
            trainer.save(run / CHECKPOINT)
            recent = np.mean(losses[-settings.checkpoint_steps :])
            _log.info(
                "step %d, %.0f s, %d songs, loss %.4f",
                trainer.step,
                trainer.seconds,
                pool.refresh(),
                recent,
            )
        if songs and (trainer.step % settings.validation_steps == 0 or last):
            _log.info("step %d: %s", trainer.step, validate(trainer.averaged, songs))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the checkpoint")
    parser.add_argument("--songs", type=Path, required=True)
    parser.add_argument("--validation", type=Path, help="folder of held-out songs")
    parser.add_argument("--configuration", type=Path, default=CONFIGURATION)
    parser.add_argument("--steps", type=int, help="instead of the configuration's")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    # Decaying gradients and tails of reverberation end in denormal numbers, which are slow.
    torch.set_flush_denormal(True)
    configuration = read_configuration(options.configuration)
    if options.steps:
        shorter = replace(configuration.training, steps=options.steps)
        configuration = replace(configuration, training=shorter)
    options.run.mkdir(parents=True, exist_ok=True)
    pool = SongPool(options.songs)
    trainer = Trainer(configuration, pool)
    if (options.run / CHECKPOINT).exists():
        trainer.load(options.run / CHECKPOINT)
        _log.info("going on from step %d", trainer.step)
    seconds = configuration.training.validation_seconds
    songs = list(heldout_songs(options.validation, seconds)) if options.validation else []
    train(trainer, pool, options.run, songs)


if __name__ == "__main__":
    main()
