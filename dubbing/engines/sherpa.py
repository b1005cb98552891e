"""sherpa-onnx: tells speakers apart by pyannote's segmentation network, voice prints and clustering, on the CPU.

What it finds is a proposal: `speakers.settle` then decides how many people there are, from the voice prints of whole clusters.
"""

from __future__ import annotations

import wave
from collections.abc import Hashable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dubbing.engines import installed, probing, speakers, weights
from dubbing.engines import options as engine_options
from dubbing.engines.base import DiarizeItem, EngineInfo, EngineSpec, Languages, Turns
from dubbing.errors import EngineBrokenError, EngineError, WeightsDamagedError

NAME = "sherpa-onnx-diarize"
INSTALL = "pip install 'dubbing-pipeline[diarize]'"
PACKAGES = {"sherpa_onnx": "sherpa-onnx"}
RATE = 16_000
SEGMENTATION_FILE, PRINT_FILE = "model.onnx", "wespeaker_en_voxceleb_resnet34_LM.onnx"
PRINTS = weights.Weights(
    name="voice-prints",
    repo="csukuangfj/speaker-embedding-models",
    files=(PRINT_FILE,),
    licence="CC-BY-4.0",
    commercial_use=True,
    size_mb=27,
)
SEGMENTATION = weights.Weights(
    name="speaker-segmentation",
    repo="csukuangfj/sherpa-onnx-pyannote-segmentation-3-0",
    files=(SEGMENTATION_FILE,),
    licence="MIT",
    commercial_use=True,
    size_mb=6,
)
NEEDED: Mapping[str, frozenset[str]] = {
    PRINT_FILE: frozenset({"framework", "output_dim", "sample_rate", "normalize_samples", "language"}),
    SEGMENTATION_FILE: frozenset(
        {"sample_rate", "window_size", "receptive_field_size", "receptive_field_shift", "num_speakers"}
        | {"powerset_max_classes", "num_classes"}
    ),
}
"""What sherpa-onnx reads from the files; where one is missing it ends the whole process."""
PRINT_S = 30
"""Speech of a cluster that its voice print is made from, s: its longest turns."""
LEAST_PRINT_S = 0.5
PROBE_S = 1.0
THRESHOLD = 0.5
"""Cosine distance up to which sherpa-onnx joins stretches of speech, its own default."""


class SherpaOptions(engine_options.Options):
    """What a serve config may say of this engine."""

    path: Path | None = None
    """Folder of the voice-print network; the models folder when unset."""
    segmentation: Path | None = None
    """Folder of the segmentation network; the models folder when unset."""
    threads: int = Field(1, ge=1)
    """CPU threads of each network."""


class SherpaDiarizer:
    """Both networks; one recording at a time."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options`: SherpaOptions. Raises UsageError, EngineMissingError, WeightsMissingError or WeightsDamagedError."""
        told = engine_options.read(SherpaOptions, NAME, options)
        prints = weights.require(PRINTS, options, kind="diarize", engine=NAME)
        segmentation = weights.require(SEGMENTATION, {"path": told.segmentation}, kind="diarize", engine=NAME)
        installed.require(PACKAGES, INSTALL, kind="diarize", engine=NAME)
        for file, needed in ((prints / PRINT_FILE, PRINTS), (segmentation / SEGMENTATION_FILE, SEGMENTATION)):
            _check(file, needed)
        import sherpa_onnx  # noqa: PLC0415 - paid only by who diarizes

        network = sherpa_onnx.SpeakerEmbeddingExtractorConfig(str(prints / PRINT_FILE), told.threads)
        self._extractor = sherpa_onnx.SpeakerEmbeddingExtractor(network)
        pyannote = sherpa_onnx.OfflineSpeakerSegmentationPyannoteModelConfig(str(segmentation / SEGMENTATION_FILE))
        self._diarizer = sherpa_onnx.OfflineSpeakerDiarization(
            sherpa_onnx.OfflineSpeakerDiarizationConfig(
                sherpa_onnx.OfflineSpeakerSegmentationModelConfig(pyannote, told.threads),
                network,
                sherpa_onnx.FastClusteringConfig(-1, THRESHOLD),
            )
        )
        self._probe_sound = probing.tone(PROBE_S, RATE).astype(np.float32) * np.float32(1 / 32768)
        self._probe_heard = self._turns(self._probe_sound)
        versions = (
            weights.version(prints),
            weights.version(segmentation),
        )
        self.info = EngineInfo(
            name=NAME,
            kind="diarize",
            version=" ".join((version("sherpa-onnx"), *versions)),
            licence="Apache-2.0",
            weights_licence=f"{SEGMENTATION.licence} (segmentation), {PRINTS.licence} (voice prints)",
            max_batch=1,
            quality="good",
        )

    def run(self, items: Sequence[DiarizeItem]) -> list[Turns]:
        """Who speaks when in each recording. Raises EngineError for a recording that is not 16 kHz."""
        return [self._one(item) for item in items]

    def bucket(self, item: DiarizeItem) -> Hashable:
        """Any mix will do."""
        return None

    def probe(self) -> None:
        """A voice print of a second of sound, and its turns, which must be those it had when the networks were loaded.

        Raises EngineBrokenError.
        """
        with probing.probing(NAME):
            probing.require_numbers(NAME, "its voice prints", self._print(self._probe_sound, [(0.0, PROBE_S)]))
            if self._turns(self._probe_sound) != self._probe_heard:
                raise EngineBrokenError(name=NAME, detail="it hears something else in a sound than it did at first")

    def close(self) -> None:
        """Let go of the networks."""
        self._diarizer = self._extractor = None

    def _one(self, item: DiarizeItem) -> Turns:
        try:
            speech = speakers.Speech(item.audio, item.speech)
        except (OSError, wave.Error) as error:
            raise EngineError(name=NAME, detail=f"{item.audio.name} cannot be read ({error})") from error
        if speech.rate != RATE:
            raise EngineError(name=NAME, detail=f"{item.audio.name} has {speech.rate} Hz, not {RATE}")
        if not speech.audio.size:
            return Turns(())
        samples = speech.audio.astype(np.float32) * np.float32(1 / 32768)
        found = self._turns(samples)
        clusters = sorted({cluster for _, _, cluster in found})
        spoken = [round(sum(b - a for a, b, c in found if c == cluster) * 1000) for cluster in clusters]
        prints = [self._print(samples, [(a, b) for a, b, c in found if c == cluster]) for cluster in clusters]
        heads = speakers.settle(spoken, np.array(prints), item.most) if clusters else []
        person = dict(zip(clusters, heads, strict=True))
        return speakers.named(
            (start, end, person[cluster]) for a, b, cluster in found for start, end in speech.back(a, b)
        )

    def _turns(self, samples: npt.NDArray[np.float32]) -> list[tuple[float, float, int]]:
        """(start s, end s, cluster) as sherpa-onnx finds them in samples of -1..1."""
        return [(s.start, s.end, s.speaker) for s in self._diarizer.process(samples).sort_by_start_time()]

    def _print(self, samples: npt.NDArray[np.float32], turns: Sequence[tuple[float, float]]) -> list[float]:
        """Voice print of a cluster; zeros when it has too little speech for one."""
        left = PRINT_S * RATE
        stream = self._extractor.create_stream()
        for start, end in sorted(turns, key=lambda turn: turn[0] - turn[1]):
            part = samples[int(start * RATE) : int(end * RATE)][:left]
            if len(part) < LEAST_PRINT_S * RATE and left < PRINT_S * RATE:
                break
            stream.accept_waveform(RATE, part)
            left -= len(part)
        stream.input_finished()
        heard = PRINT_S * RATE - left >= LEAST_PRINT_S * RATE and self._extractor.is_ready(stream)
        return list(self._extractor.compute(stream)) if heard else [0.0] * int(self._extractor.dim)


def _check(file: Path, needed: weights.Weights) -> None:
    """Raises WeightsDamagedError for a file sherpa-onnx could not load: it would end the process, or say little."""
    import onnxruntime  # noqa: PLC0415 - paid only by who diarizes
    from onnxruntime.capi import onnxruntime_pybind11_state as states  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    failures = (states.InvalidProtobuf, states.InvalidGraph, states.Fail, states.InvalidArgument, states.NotImplemented)
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        missing = NEEDED[file.name] - set(session.get_modelmeta().custom_metadata_map)
        detail = f"it does not say its {sorted(missing)[0]}" if missing else ""
    except failures as error:
        detail = str(error).splitlines()[0]
    if detail:
        raise WeightsDamagedError(
            kind="diarize",
            name=NAME,
            detail=f"{file.name} cannot be loaded ({detail})",
            install=f"Run: dub models fetch {needed.name}",
        )


DIARIZE = EngineSpec(
    name=NAME,
    kind="diarize",
    quality="good",
    summary="Speakers told apart by segmentation, voice prints and clustering.",
    licence="Apache-2.0",
    commercial_use=True,
    locate=lambda: installed.locate(PACKAGES, INSTALL, SEGMENTATION, PRINTS),
    languages=lambda: Languages(any=True),
    load=SherpaDiarizer,
    weights=PRINTS,
    more_weights=(SEGMENTATION,),
)
