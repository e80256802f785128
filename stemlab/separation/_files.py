"""From a file to files: where the stems go and what is written beside them."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from stemlab import audio as audio_io
from stemlab._typing import AudioArray, StrPath
from stemlab.audio.writing import write_to
from stemlab.chunking import MixtureWindow
from stemlab.errors import AudioError, ParameterError
from stemlab.networks.devices import peak_device_bytes
from stemlab.networks.identity import digest_of
from stemlab.results import (
    BlockStore,
    DeviceRecord,
    InputRecord,
    ModelRecord,
    ResultPlace,
    RunCost,
    RunManifest,
    StemRecord,
    Target,
    check_capacity,
    describe_plan,
    only_publisher,
    peak_memory_bytes,
    recover,
    remove_unfinished,
)
from stemlab.separation._identity import identity_of
from stemlab.separation._job import Job, Recording, exactly, recording_of_file
from stemlab.separation.events import SeparationResult
from stemlab.separation.settings import OutputSettings, SeparationSettings, pack_parameters

_log = logging.getLogger(__name__)

# By so much a lossy codec may change the length of a recording.
_CODEC_SAMPLES = 8192


def settings_for_model(
    settings: SeparationSettings, output: OutputSettings, offered: Sequence[str]
) -> SeparationSettings:
    """Ask the model for one stem where two are written: the other is the rest of the mixture."""
    if output.two_stems is None:
        return settings
    choices = settings.pick_sources(offered)
    if output.two_stems not in choices:
        raise ParameterError(
            f"two_stems={output.two_stems!r} is not among the stems to make. "
            f"Choose among {', '.join(choices)}."
        )
    return replace(settings, sources=(output.two_stems,))


def run_to_files(
    job: Job, asked: SeparationSettings, path: Path, out_dir: Path, output: OutputSettings
) -> SeparationResult:
    """Run a job over a file, block by block, and publish its stems and their manifest."""
    started = time.perf_counter()
    job.load()
    info = audio_io.read_info(path)
    audio_io.check_output_format(output.format, output.bits, info.sample_rate)
    recording = recording_of_file(info, output.downmix)
    stems = job.sources if output.two_stems is None else (*job.sources, f"no_{output.two_stems}")
    resampled = info.sample_rate != job.model.spec.sample_rate
    room = _room_bytes(job, recording, info.samples or 0, len(stems))
    check_capacity(out_dir, room, path)  # Before days are spent on reading what cannot be kept.
    digest = audio_io.file_digest(path)
    place = ResultPlace(
        out_dir, output.filename, path, job.model.spec.name, stems, output.format, digest
    )
    identity = identity_of(job.model, job.batch_size)
    fingerprint = _fingerprint(identity, asked, output, digest)
    if output.resume and identity["model"] is None:
        _log.warning(
            "no earlier run of %s is continued: its class is not one of Demucs, and its weights "
            "do not tell what it computes. Pass network_version to vouch for its code.",
            job.model.spec.name,
        )
    owner = digest[:16]
    recover(out_dir, owner)

    def finished() -> SeparationResult | None:
        if not output.resume:
            return None
        done = place.find_finished(fingerprint)
        if done is None or not _is_whole(done[0], done[1], path, recording, output):
            return None
        target, run = done
        return SeparationResult(target.stems, target.manifest, run, was_cached=True)

    if done := finished():
        remove_unfinished(out_dir, owner)
        return done
    place.choose(force=output.force)
    job.prepare(recording)
    with BlockStore(
        out_dir,
        job.sources,
        recording.channels,
        owner=owner,
        key=fingerprint,
        resume=output.resume,
        expected_bytes=room,
        most_samples=job.made_plans[0].samples,
    ) as store:
        begin = store.finished
        if begin:
            seconds = begin / job.model.spec.sample_rate
            job.changes.append(f"An earlier run was continued, from {seconds:.0f} s on.")
        _store(store, job, recording)
        if resampled:
            store.rewrite(job.at_native_rate(store.together(), recording))
        if output.two_stems:
            _add_rest(store, recording, job.samples, output.two_stems)
        gain, loud = _settle_gain(store.peak, output)
        drafts = _encode(store, stems, job.samples, recording, gain, output)
        if audio_io.file_digest(path) != digest:
            raise AudioError(f"{str(path)!r} changed while it was read. Separate it again.", path)
        with only_publisher(out_dir):
            # Another process may have written a result since the first time.
            if done := finished():
                return done
            target = place.choose(force=output.force)
            run = RunManifest(
                fingerprint=fingerprint,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                input=_describe_input(path, target, info, digest, job.samples),
                model=_describe_model(job),
                parameters=pack_parameters(asked, output, job.batch_size),
                device=DeviceRecord(
                    name=identity["device"],
                    reason=job.model.device.reason,
                    arithmetic=identity["arithmetic"],
                ),
                threads=identity["threads"],
                plan=[describe_plan(plan) for plan in job.made_plans],
                changes=[*job.changes, *loud],
                stems=_describe_stems(store, target, drafts),
                cost=_describe_cost(job, time.perf_counter() - started, begin),
                versions=identity["versions"],
            )
            store.publish(target, drafts, run)
    return SeparationResult(target.stems, target.manifest, run)


def _room_bytes(job: Job, recording: Recording, samples: int, files: int) -> int:
    """Bytes in the working folder at its fullest; `samples` are at the recording's rate."""
    rate, made = job.model.spec.sample_rate, len(job.sources)
    separated = made * audio_io.resampled_length(samples, recording.sample_rate, rate)
    resampled = made * samples if recording.sample_rate != rate else 0
    rest = (files - made) * samples
    encoded = files * samples  # As float WAV; other formats take less.
    return 4 * recording.channels * (separated + resampled + rest + encoded)


def _is_whole(
    target: Target,
    run: RunManifest,
    song: Path,
    recording: Recording,
    output: OutputSettings,
) -> bool:
    """Whether the stems of a finished run are audio of the recording's length, and those recorded.

    The digests of their files are right, but all that is in a manifest may have been made up.
    """
    samples, _ = audio_io.read_length(song)
    try:
        for stem, path in target.stems.items():
            info, (length, _) = audio_io.read_info(path), audio_io.read_length(path)
            if (info.sample_rate, info.channels) != (recording.sample_rate, recording.channels):
                return False
            if abs(length - samples) > _CODEC_SAMPLES:
                return False
            # Float WAV holds the very samples.
            if output.holds_any_level and _samples_digest(path) != run.stems[stem].samples_sha256:
                return False
    except AudioError:
        return False
    return True


def _samples_digest(path: Path) -> str:
    """Digest of the samples of a file, as `BlockStore.samples_sha256` takes it."""
    digest = hashlib.sha256()
    for block in audio_io.stream_file(path):
        digest.update(np.ascontiguousarray(block.T, "<f4").data)
    return digest.hexdigest()


def _store(store: BlockStore, job: Job, recording: Recording) -> None:
    """Separate what is missing, and write each block while the next one is computed."""
    with ThreadPoolExecutor(1, "stemlab-writer") as writer:
        written: Future[None] | None = None
        for block in job.separate(recording, store.finished):
            if written is not None:
                written.result()
            written = writer.submit(_write, store, dict(zip(job.sources, block, strict=True)))
        if written is not None:
            written.result()


def _write(store: BlockStore, stems: dict[str, AudioArray]) -> None:
    store.append(stems)
    store.checkpoint()


def _fingerprint(
    identity: dict[str, Any], asked: SeparationSettings, output: OutputSettings, input_sha256: str
) -> str:
    """Digest of all that decides what a run writes: equal ones need not be repeated."""
    how = {name: value for name, value in asdict(output).items() if name not in ("force", "resume")}
    # If the model is unknown, no two runs are the same.
    known = {} if identity["model"] else {"run": secrets.token_hex(16)}
    parameters = {**asdict(asked), **how}
    return digest_of({**identity, **known, "input": input_sha256, "parameters": parameters})


def _add_rest(store: BlockStore, recording: Recording, samples: int, stem: str) -> None:
    """Add what the mixture holds besides one stem."""
    store.add_stem(f"no_{stem}")
    mixture = MixtureWindow(
        exactly(recording.blocks(), samples, recording), recording.channels, samples
    )
    position = 0
    for block in store.blocks(stem):
        stop = position + block.shape[1]
        store.append({f"no_{stem}": mixture.read(position, stop) - block})
        mixture.forget(stop)
        position = stop


def _encode(
    store: BlockStore,
    stems: Sequence[str],
    samples: int,
    recording: Recording,
    gain: float,
    output: OutputSettings,
) -> dict[str, str]:
    """Write the stems as whole files into the working folder, two at a time."""

    def write(stem: str) -> str:
        with store.draft(stem, output.format) as (draft, file):
            write_to(
                file,
                Path(f"{stem}.{output.format}"),
                store.blocks(stem),
                recording.sample_rate,
                recording.channels,
                format=output.format,
                bits=output.bits,
                gain=gain,
                clamp=output.clamps,
                samples=samples,
            )
        return draft

    with ThreadPoolExecutor(2, "stemlab-encoder") as encoders:
        return dict(zip(stems, encoders.map(write, stems), strict=True))


def _settle_gain(peak: float, output: OutputSettings) -> tuple[float, list[str]]:
    """Decide the one gain of all stems, and say what happens to loud samples."""
    if output.holds_any_level or peak <= 1:
        return 1.0, []
    level = f"The stems peak at {20 * math.log10(peak):.2f} dB above full scale"
    if output.clamps:
        return 1.0, [f"{level}: cut off there, as asked."]
    return 1 / peak, [f"{level}: all were scaled by {1 / peak:.6f}."]


def _describe_input(
    path: Path, target: Target, info: audio_io.AudioInfo, digest: str, samples: int
) -> InputRecord:
    return InputRecord(
        path=relative_path(path, target.manifest.parent),
        sha256=digest,
        bytes=os.path.getsize(path),
        sample_rate=info.sample_rate,
        channels=info.channels,
        samples=samples,
        seconds=samples / info.sample_rate,
    )


def _describe_model(job: Job) -> ModelRecord:
    spec = job.model.spec
    return ModelRecord(
        name=spec.name,
        request=job.model.request,
        kind="ready network" if job.model.request is None else "verified files",
        sha256=job.model.sha256,
        weights_sha256=job.model.weights_sha256,
        forward="fast" if job.model.is_fast else "Demucs' own",
        sample_rate=spec.sample_rate,
        sources=list(spec.sources),
    )


def _describe_stems(
    store: BlockStore, target: Target, drafts: dict[str, str]
) -> dict[str, StemRecord]:
    return {
        stem: StemRecord(
            file=target.seen_from_manifest(stem),
            bytes=store.draft_bytes(draft),
            sha256=store.draft_sha256(draft),
            samples_sha256=store.samples_sha256(stem),
            peak=store.stem_peak(stem),
        )
        for stem, draft in drafts.items()
    }


def _describe_cost(job: Job, wall_seconds: float, begin: int) -> RunCost:
    """What this run took, for the samples from `begin` on, which no earlier run had separated."""
    samples, rate = job.made_plans[0].samples - begin, job.model.spec.sample_rate
    return RunCost(
        wall_seconds=round(wall_seconds, 3),
        rtf=round(wall_seconds * rate / samples, 4) if samples else None,
        peak_memory_bytes=peak_memory_bytes(),
        peak_memory_of="the whole process since it started, earlier runs included",
        peak_device_bytes=peak_device_bytes(job.model.device.torch_device),
    )


def relative_path(path: StrPath, folder: Path) -> str:
    """Write the path of the input as seen from the result, so that both can move together."""
    try:
        return os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    except ValueError:  # Another drive.
        return os.path.abspath(path)
