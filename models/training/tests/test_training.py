"""The training of stemlab-mini, on songs of noise: the commands work together, seeded, resumable.

The synthesiser's sampled sounds need system packages that a test machine need not have; what is
computed from scratch is tested here.
"""

from __future__ import annotations

import copy
import importlib
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from stemlab._assets import DEMO_SOURCES
from stemlab.registry import read_manifest
from stemlab.separation import AudioStemSeparator

TRAINING = Path(__file__).resolve().parents[1]
SOUNDS = TRAINING.parents[1] / "supply-chain" / "sound-sources.toml"
MINI = TRAINING.parent / "stemlab-mini"
RATE = 44_100


def run(script, *arguments, check=0):
    done = subprocess.run(
        [sys.executable, str(TRAINING / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == check, done.stderr
    return done.stderr


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def training():
    """The modules of the training, by name."""
    return importlib.import_module


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """A folder with two songs of noise."""
    folder = tmp_path_factory.mktemp("songs")
    palette = importlib.import_module("synth").TRAINING
    inner = importlib.import_module("songs").song_folder(folder, palette)
    inner.mkdir()
    generator = np.random.default_rng(3)
    for seed in (1, 2):
        stems = 0.05 * generator.standard_normal((6 * RATE, 8))
        soundfile.write(inner / f"song-{seed:07d}.wav", stems, RATE, subtype="PCM_16")
    return folder


@pytest.fixture(scope="module")
def configuration(tmp_path_factory):
    """That of stemlab-mini with a smaller network, on two songs and for two steps."""
    text = (TRAINING / "stemlab-mini.toml").read_text()
    small = {"channels": 4, "bottom_channels": 16, "t_layers": 1, "crop_seconds": [0.5, 1.0]}
    small |= {"count": 2, "at_start": 2, "seconds": 6.0, "steps": 2, "crop_weights": [0.5, 0.5]}
    for name, value in small.items():
        text, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
        assert found == 1
    path = tmp_path_factory.mktemp("configuration") / "two-steps.toml"
    path.write_text(text)
    return path


def weights(run_folder):
    return torch.load(run_folder / "checkpoint.pt", weights_only=True)["averaged"]


def test_training_is_seeded_resumable_and_exports_a_model(training, songs, configuration, tmp_path):
    whole, cut, models = tmp_path / "whole", tmp_path / "cut", tmp_path / "models"
    arguments = ("--songs", songs, "--configuration", configuration)
    run("train.py", whole, *arguments, "--workers", 1, "--validation", songs)
    run("train.py", cut, *arguments, "--until", 1)
    assert any(not torch.equal(each, weights(whole)[name]) for name, each in weights(cut).items())
    settings = training("configuration").read_configuration(configuration)
    faster = replace(settings, training=replace(settings.training, learning_rate=1.0))
    with pytest.raises(ValueError, match="other settings"):
        training("train").Trainer(faster).load(cut / "checkpoint.pt")
    with pytest.raises(ValueError, match="1 of 2 steps"):
        training("export").export(cut, settings, models)
    assert not models.exists()
    assert "going on from step 1" in run("train.py", cut, *arguments)
    for name, tensor in weights(cut).items():
        torch.testing.assert_close(tensor, weights(whole)[name])
    assert (whole / "curves.png").read_bytes().startswith(b"\x89PNG")

    run("export.py", whole, "--models", models, "--configuration", configuration)
    manifest = read_manifest(models / "stemlab-mini")
    assert manifest.parameters == sum(each.numel() for each in weights(whole).values())
    mixture = 0.1 * np.random.default_rng(4).standard_normal((2, RATE))
    stems = AudioStemSeparator(str(models / "stemlab-mini")).separate_audio(mixture, RATE)
    assert tuple(stems) == DEMO_SOURCES
    assert all(np.isfinite(stem).all() for stem in stems.values())

    # What was recorded can be repeated, and a difference is noticed.
    recorded = json.loads((models / "stemlab-mini" / "training.json").read_bytes())
    trainer = training("train").Trainer(settings)
    batches = training("train").batches(settings, songs, range(2))
    again = [trainer.train_step(batch) for batch in batches]
    repeat = training("repeat")
    step, difference = repeat.worst_difference(again, recorded["first_losses"])
    assert difference < repeat.TOLERANCE / 10, step
    recorded["first_losses"][1] += 0.1
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(recorded))
    run("repeat.py", *arguments, "--recorded", changed, check=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps =", "stepz ="), "steps, stepz"),
        (("[mixing]", "[extra]\na = 1\n[mixing]"), "unknown tables: extra"),
        (("seconds = 6.0", "seconds = 1.0"), "songs.seconds=1 "),
    ],
)
def test_a_faulty_configuration_is_refused(training, configuration, tmp_path, change, message):
    path = tmp_path / "faulty.toml"
    path.write_text(configuration.read_text().replace(*change, 1))
    with pytest.raises(ValueError, match=re.escape(message)):
        training("configuration").read_configuration(path)


def test_examples_are_of_their_step_and_sum_as_they_were_mixed(training, configuration, songs):
    settings = training("configuration").read_configuration(configuration)
    examples = training("mixing").Examples(settings, songs)
    first, again, second = examples[0], examples[0], examples[1]
    assert first.shape[:3] == (1, 4, 2)
    assert first.shape[3] in (RATE // 2, RATE)
    assert torch.equal(first, again)
    assert first.shape != second.shape or not torch.equal(first, second)
    # At the level that the network takes: mono mixture without mean, of deviation 1.
    mono = first.sum(dim=1).mean(dim=1)
    assert abs(float(mono.mean())) < 1e-4
    assert abs(float(mono.std()) - 1) < 1e-3


def test_silent_songs_do_not_hang_the_training(training, configuration, songs, monkeypatch):
    settings = training("configuration").read_configuration(configuration)
    mixing = training("mixing")
    monkeypatch.setattr(mixing, "load_song", lambda path, start, n: np.zeros((4, 2, n), np.float32))
    monkeypatch.setattr(mixing.Mixer, "_noise", lambda self, mixture: np.zeros_like(mixture))
    with pytest.raises(ValueError, match="silent"):
        mixing.Examples(settings, songs)[0]


@pytest.mark.parametrize("effect", ["limit_together", "compress_together", "clip_together"])
def test_a_master_keeps_the_sum(training, rng, effect):
    """One gain for all stems: every stem keeps its share of the mixture, sample by sample."""
    stems = 0.3 * rng.standard_normal((4, 2, RATE)).astype(np.float32)
    arguments = {
        "limit_together": (-12.0,),
        "compress_together": (-20.0, 4.0, 0.1),
        "clip_together": (2.0,),
    }
    mastered = getattr(training("synth.effects"), effect)(stems, *arguments[effect])
    assert not np.allclose(mastered, stems)
    gain = mastered.sum(axis=0) / stems.sum(axis=0)
    audible = np.abs(stems.sum(axis=0)) > 0.05
    difference = mastered - stems * gain
    assert np.abs(difference[:, audible]).max() < 1e-4


def test_the_curves_show_the_losses(training, tmp_path):
    loss = [-1.0 - 0.001 * step for step in range(300)]
    history = {"loss": loss, "validation": [[100, {"drums": 1.0}], [200, {"bass": 2.0}]]}
    figure = training("curves").draw_curves(history, tmp_path / "curves.png")
    low, high = figure.axes[0].get_ylim()
    assert low < min(loss) < max(loss) < high


def test_no_sound_source_is_in_both_palettes(training):
    seen, unseen = training("synth").TRAINING, training("synth").UNSEEN
    for kind in ("soundfonts", "drum_kits", "samples", "speakers"):
        assert not set(getattr(seen, kind)) & set(getattr(unseen, kind))
    assert seen.computed
    assert not unseen.computed


@pytest.fixture(scope="module")
def sounds():
    """The sources of sound that the inventory of the supply chain lists."""
    tables = tomllib.loads(SOUNDS.read_text("utf-8")).items()
    return {name: table for name, table in tables if isinstance(table, dict)}


def test_every_listed_sound_is_described(sounds):
    described = (TRAINING / "README.md").read_text("utf-8")
    for name, sound in sounds.items():
        package = sound.get("debian", sound.get("pypi"))
        if package is not None:
            assert package in described, name


def test_the_synthesiser_uses_exactly_the_listed_sounds(training, sounds):
    palettes = training("synth.palette").PALETTES
    for palette, use in (("training", "training"), ("unseen", "evaluation")):
        used = palettes[palette]
        names = {*used.soundfonts, *used.drum_kits, *used.samples, *used.speakers}
        declared = {
            sound_name
            for sound in sounds.values()
            for sound_name in sound.get("palette", [])
            if sound["use"] == use
        }
        assert names == declared


def test_the_pool_of_songs_grows_with_the_steps_alone(training):
    songs = training("configuration").Songs(
        first_seed=1, count=100, seconds=32.0, at_start=20, complete_at=500
    )
    assert [songs.known_at(step) for step in (0, 250, 500, 900)] == [20, 60, 100, 100]


@pytest.mark.parametrize("name", ["absolute", "logarithmic"])
def test_losses_fall_with_every_error(training, name):
    loss = training("losses").LOSSES[name]
    generator = torch.Generator().manual_seed(0)
    stems = torch.randn(1, 4, 2, 1000, generator=generator)
    stems[:, 1] *= 0.01
    stems[:, 2] = 0
    error = torch.randn(1, 4, 2, 1000, generator=generator)
    values = [float(loss(stems, stems + size * error, 0.25)) for size in (1, 0.3, 0.1, 0)]
    assert values == sorted(values, reverse=True)
    # Errors that cancel in the sum are better than those that do not.
    pair = torch.zeros_like(stems)
    pair[:, 0], pair[:, 3] = error[:, 0], -error[:, 0]
    assert loss(stems, stems + pair, 1.0) < loss(stems, stems + pair.abs(), 1.0)


def test_composing_is_seeded():
    code = (
        "import numpy as np\n"
        "from synth.composition import compose\n"
        "print([repr(compose(np.random.default_rng(seed), 16.0)) for seed in (5, 5, 6)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=TRAINING, check=True
    )
    first, again, other = eval(done.stdout)
    assert first == again
    assert first != other


# ---------------------------------------------------------------- evaluation


def tones(seconds=2.0):
    """Four stereo signals that do not meet in frequency, and are of different levels."""
    time = np.arange(int(seconds * RATE)) / RATE
    hertz = np.array([[110.0], [440.0], [1760.0], [7040.0]])
    signals = np.array([[0.4], [0.3], [0.2], [0.1]]) * np.sin(2 * np.pi * hertz * time)
    return np.repeat(signals[:, None], 2, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def shipped():
    return json.loads((MINI / "evaluation.json").read_bytes())


def test_no_figure_in_the_card_is_typed_by_hand(training, shipped):
    card = training("evaluation.card")
    text = (MINI / "README.md").read_text("utf-8")
    assert card.into_card(text, shipped) == text, "run make evaluate"
    changed = copy.deepcopy(shipped)
    changed["accuracy"]["unseen"]["model"]["drums"]["sdr"][1] += 0.1
    assert card.into_card(text, changed) != text


def test_a_card_keeps_what_people_wrote(training, shipped):
    card = training("evaluation.card")
    text = f"before\n{card.BEGIN}\nold\n{card.END}\nafter\n"
    renewed = card.into_card(text, shipped)
    assert renewed.startswith("before\n")
    assert renewed.endswith("\nafter\n")
    assert "old" not in renewed
    with pytest.raises(ValueError, match="no section between"):
        card.into_card("a card without markers", shipped)


def test_the_oracle_separates_what_does_not_overlap(training):
    stems = tones()
    mixture = stems.sum(axis=0)
    estimates = training("evaluation.baselines").oracle_mask(mixture, stems)
    graded = training("evaluation.scores").grade(estimates, stems, mixture)
    for source in DEMO_SOURCES:
        assert graded[source]["sdr"] > 25, source
        assert graded[source]["si_sdr_gain"] > 15, source


def test_baselines_add_up_to_the_mixture(training, rng):
    stems = tones(1.0) + 0.02 * rng.standard_normal((4, 2, RATE)).astype(np.float32)
    mixture = stems.sum(axis=0)
    baselines = training("evaluation.baselines").BASELINES
    for name, estimate in baselines.items():
        estimates = estimate(mixture, stems)
        assert estimates.shape == stems.shape, name
        if name != "mixture":
            np.testing.assert_allclose(estimates.sum(axis=0), mixture, atol=1e-4, err_msg=name)


def test_classical_baseline_sends_each_sound_where_it_belongs(training):
    """A click, a low tone, a tone in the middle, and a tone on one side."""
    low, centre, side = 0.3 * tones(4.0)[0], 0.3 * tones(4.0)[1], 0.3 * tones(4.0)[2]
    side[1] = 0
    clicks = np.zeros_like(low)
    clicks[:, RATE // 4 :: RATE // 2] = 0.9
    stems = np.stack([clicks, low, side, centre])
    graded = training("evaluation.scores").grade(
        training("evaluation.baselines").classical(stems.sum(axis=0), stems),
        stems,
        stems.sum(axis=0),
    )
    for source in DEMO_SOURCES:
        assert graded[source]["si_sdr_gain"] > 5, source


def test_a_quarter_of_the_mixture_has_the_sdr_of_theory(training):
    """Of four equal sources that share nothing: 1 over (3/4)^2 + 3 (1/4)^2, and for the mixture
    itself 1 over 3; their SI-SDR is the same."""
    stems = tones()
    stems /= np.abs(stems).max(axis=(1, 2), keepdims=True)
    mixture = stems.sum(axis=0)
    baselines, grade = training("evaluation.baselines"), training("evaluation.scores").grade
    quarter = grade(baselines.equal_parts(mixture, stems), stems, mixture)
    whole = grade(baselines.mixture_itself(mixture, stems), stems, mixture)
    for source in DEMO_SOURCES:
        assert quarter[source]["sdr"] == pytest.approx(10 * np.log10(16 / 12), abs=0.01)
        assert whole[source]["sdr"] == pytest.approx(-10 * np.log10(3), abs=0.01)
        assert quarter[source]["si_sdr"] == pytest.approx(whole[source]["si_sdr"])
        assert quarter[source]["si_sdr_gain"] == pytest.approx(0, abs=1e-6)


def test_an_inaudible_source_is_not_graded_and_songs_are_summed_up_without_it(training, rng):
    scores = training("evaluation.scores")
    # With a little noise: without any, the SI-SDR of a scaled stem is infinite.
    stems = tones() + 1e-4 * rng.standard_normal((4, 2, 2 * RATE))
    whole = scores.grade(0.9 * tones(), stems, stems.sum(axis=0))
    assert whole["bass"]["sdr"] == pytest.approx(20, abs=0.01)
    assert whole["residual"] == pytest.approx(-20, abs=0.01)
    stems[1] *= 0.001
    without = scores.grade(0.5 * tones(), stems, stems.sum(axis=0))
    assert "bass" not in without
    assert scores.mean_sdr(without) == pytest.approx(6.02, abs=0.01)
    both = scores.average([whole, without])
    assert both["bass"]["sdr"] == pytest.approx(20, abs=0.01)
    assert both["drums"]["sdr"] == pytest.approx((20 + 6.02) / 2, abs=0.01)
    low, median, high = scores.quartiles([whole, without, without])["drums"]["sdr"]
    assert low == pytest.approx(6.02, abs=0.01) == median
    assert high == pytest.approx((20 + 6.02) / 2, abs=0.01)


def test_bss_eval_holds_on_music_that_a_codec_has_cut_off(training):
    """White noise at -20 dB is an artifact and not interference; see `bss_eval`."""
    generator = np.random.default_rng(5)
    # Two frames and one channel: museval's time goes with the cube of the channels.
    spectrum = np.fft.rfft(generator.standard_normal((4, 1, 2 * RATE)))
    spectrum[..., spectrum.shape[-1] // 2 :] = 0
    stems = np.fft.irfft(spectrum)
    noise = 0.1 * stems.std() * generator.standard_normal(stems.shape)
    for figures in training("evaluation.scores").bss_eval(stems + noise, stems).values():
        assert figures["SDR"] == pytest.approx(20, abs=0.5)
        assert figures["SAR"] == pytest.approx(20, abs=2)
        assert figures["SIR"] > 25
