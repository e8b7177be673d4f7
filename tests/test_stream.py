"""Streams: the same answer as of the whole clip, at constant cost, saved and resumed, and what is refused."""

import json
import threading
import tracemalloc

import av
import numpy as np
import pytest
from flax import nnx

from tests import tiny
from zoo import predict, registry, stream
from zoo.data.live import LiveReader
from zoo.data.sampling import at_rate
from zoo.errors import UserError
from zoo.predictor import Classifier
from zoo.registry import WeightSource

WEIGHTS = WeightSource(kind="checkpoint", files={"weights/a": "0"})
PREPROCESSING = tiny.PREPROCESSING | {"num_frames": 6, "resize_short": 16, "crop": 16}
FRAMEWISE = {"frame_cnn": "cnn_2d", "frame_cnn_options": {"image_size": 16}, "hidden_features": 8, "num_classes": 3}
IN_WINDOWS = {"frame_cnn": "r3d_18", "frame_cnn_options": {}, "window": 4, "hidden_features": 8, "num_classes": 3}


def recurrent(seed=0, source=WEIGHTS, **options):
    options = FRAMEWISE | options
    model = registry.create("cnn_lstm", seed=seed, **options)
    model.eval()
    card = tiny.card(source, name="tiny_lstm", arch="cnn_lstm", options=options, preprocessing=PREPROCESSING)
    return Classifier(card, model)


def video(frames=6, height=20, width=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "options", [{}, {"cell": "gru", "num_layers": 2, "readout": "attention"}, {"num_layers": 0, "readout": "mean"}]
)
def test_a_stream_says_what_the_whole_clip_says(options):
    predictor = recurrent(**options)
    frames = video()
    with predictor.stream() as live:
        for number, frame in enumerate(frames, 1):
            answer = live.push(frame)
            assert live.frames == number
            whole = predictor.model(predictor.preprocess(frames)[:, :number])
            np.testing.assert_allclose(live.logits, whole, atol=1e-4)
        assert answer == live.finish() == live.answer()
    assert [label for label, _ in answer] == [label for label, _ in predictor(frames)]
    np.testing.assert_allclose([p for _, p in answer], [p for _, p in predictor(frames)], atol=1e-4)


@pytest.mark.slow
def test_windows_answer_when_they_are_full_and_the_end_fills_the_last():
    predictor = recurrent(**IN_WINDOWS)
    frames = video()
    with predictor.stream() as live:
        answers = [live.push(frame) for frame in frames]
        assert answers[:3] == [[], [], []]
        assert answers[3] == answers[5] != []
        np.testing.assert_allclose(live.logits, predictor.model(predictor.preprocess(frames)[:, :4]), atol=1e-4)
        live.finish()
        np.testing.assert_allclose(live.logits, predictor.model(predictor.preprocess(frames)), atol=1e-4)


def test_many_streams_share_a_call_and_one_begins_anew_alone():
    predictor = recurrent()
    clips = np.stack([video(seed=seed) for seed in range(3)])
    with predictor.stream(3) as live:
        for frames in clips.swapaxes(0, 1)[:4]:
            live.push(frames)
        live.reset(1)
        for frames in clips.swapaxes(0, 1)[4:]:
            answers = live.push(frames)
        assert len(answers) == 3
        for index, first in ((0, 0), (1, 4), (2, 0)):
            alone = predictor.model(predictor.preprocess(clips[index])[:, first:])
            np.testing.assert_allclose(live.logits[index], alone[0], atol=1e-4)


def test_a_long_stream_compiles_once_and_does_not_grow():
    predictor = recurrent(hidden_features=7)
    frames = video(frames=8)
    before = stream._step._cache_size()
    with predictor.stream() as live:
        for _ in range(4):
            live.push(frames[0])
        tracemalloc.start()
        for index in range(400):
            live.push(frames[index % 8])
            if index == 99:
                early, _ = tracemalloc.get_traced_memory()
        late, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert stream._step._cache_size() == before + 1
    assert late - early < 100_000, "300 frames have 432,000 bytes"


@pytest.mark.parametrize("options", [{}, pytest.param(IN_WINDOWS, marks=pytest.mark.slow)])
def test_a_saved_stream_goes_on_where_it_was(options, tmp_path):
    predictor = recurrent(**options)
    frames = video(frames=7)
    with predictor.stream() as live:
        for frame in frames[:5]:
            live.push(frame)
        live.save(tmp_path / "state")
        for frame in frames[5:]:
            live.push(frame)
        live.finish()
    with predictor.stream(resume=tmp_path / "state") as again:
        assert again.frames == 5
        for frame in frames[5:]:
            again.push(frame)
        again.finish()
    np.testing.assert_allclose(again.logits, live.logits, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_state_that_does_not_fit_is_refused(tmp_path):
    predictor = recurrent()
    with predictor.stream() as live:
        live.push(video()[0])
        live.save(tmp_path / "state")
    other = recurrent(source=WeightSource(kind="checkpoint", files={"weights/a": "1"}))
    with pytest.raises(UserError, match="is the state of tiny_lstm or other weights, not of this tiny_lstm"):
        other.stream(resume=tmp_path / "state")
    with pytest.raises(UserError, match="was saved with streams=None, not 2"):
        predictor.stream(2, resume=tmp_path / "state")
    whole = (tmp_path / "state").read_bytes()
    for name, data in {"cut": whole[: len(whole) // 2], "text": b"hello", "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name} is not the state of a stream, or is damaged"):
            predictor.stream(resume=tmp_path / name)
    with pytest.raises(UserError, match="there is no file"):
        predictor.stream(resume=tmp_path / "nowhere")
    with predictor.stream() as live, pytest.raises(UserError, match="cannot write"):
        live.save(tmp_path / "no folder" / "state")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((20, 25, 3), np.uint8), "frame 2 is 20x25 and those before are 20x24; begin a new stream"),
        (np.zeros((20, 24, 3), np.float32), r"RGB values from 0 to 255, not float32 \[20, 24, 3\]"),
        (np.zeros((20, 24, 4), np.uint8), r"not uint8 \[20, 24, 4\]"),
        (np.zeros((20, 24), np.uint8), r"not uint8 \[20, 24\]"),
        (np.zeros((0, 24, 3), np.uint8), r"not uint8 \[0, 24, 3\]"),
    ],
)
def test_a_wrong_frame_is_told_and_nothing_is_lost(frame, words):
    predictor = recurrent()
    frames = video()
    with predictor.stream() as live:
        live.push(frames[0])
        with pytest.raises(UserError, match=words):
            live.push(frame)
        live.push(frames[1])
        whole = predictor.model(predictor.preprocess(frames)[:, :2])
        np.testing.assert_allclose(live.logits, whole, atol=1e-4)


def test_what_no_stream_can_do_is_told():
    predictor = recurrent()
    live = predictor.stream()
    live.close()
    for act in (lambda: live.push(video()[0]), live.finish, lambda: live.save("x"), lambda: live.reset(0)):
        with pytest.raises(UserError, match="this stream is closed"):
            act()
    with pytest.raises(UserError, match="tiny_lstm needs the whole clip"):
        recurrent(bidirectional=True).stream()
    with pytest.raises(UserError, match="tiny_colours needs the whole clip"):
        Classifier(tiny.card(WEIGHTS), tiny.tiny(rngs=nnx.Rngs(0))).stream()
    with pytest.raises(UserError, match="there is no stream 2 here; there are 2"):
        predictor.stream(2).reset(2)
    with pytest.raises(UserError, match="streams=0: give 1 or more"):
        predictor.stream(0)


def test_frames_are_taken_at_the_model_s_rate():
    shown = [(0.0, "a"), (0.1, "b"), (0.35, "c"), (0.5, "d")]
    assert [(round(s, 6), f) for s, f in at_rate(shown, 10)] == [
        (0.0, "a"), (0.1, "b"), (0.2, "b"), (0.3, "b"), (0.4, "c"), (0.5, "d")
    ]  # fmt: skip
    assert list(at_rate([], 10)) == []
    assert [f for _, f in at_rate([(0.0, "a")], 10)] == ["a"]


def written(path, frames=24, container_format=None, options=None):
    with av.open(path, "w", format=container_format, options=options or {}) as container:
        output = container.add_stream("mpeg4", rate=10)
        output.width, output.height, output.pix_fmt = 48, 32, "yuv420p"
        for number in range(frames):
            picture = np.full((32, 48, 3), 10 * number, np.uint8)
            container.mux(output.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(output.encode())


def test_a_live_source_is_read_and_what_nobody_took_is_counted(tmp_path):
    address = "tcp://127.0.0.1:18765"
    sender = threading.Thread(target=written, args=(f"{address}?listen=1", 24, "mpegts"), daemon=True)
    sender.start()
    reader = opened_when_it_listens(address)
    with reader as live:
        reader._thread.join(20)  # all has come before anyone reads
        seen = list(live.frames())
    assert len(seen) == 4
    assert live.dropped == 24 - 4
    assert [frame.shape for _, frame in seen] == [(32, 48, 3)] * 4
    np.testing.assert_allclose([seconds for seconds, _ in seen], [2.0, 2.1, 2.2, 2.3], atol=1e-6)
    assert abs(int(seen[-1][1].mean()) - 230) < 6, "the newest frames are the ones kept"
    with pytest.raises(UserError, match=r"cannot open tcp://127\.0\.0\.1:1"):
        LiveReader("tcp://127.0.0.1:1")


def opened_when_it_listens(address):
    for _ in range(200):
        try:
            return LiveReader(address)
        except UserError:
            threading.Event().wait(0.05)
    raise TimeoutError


def test_predict_follows_a_stream_and_draws_it(tmp_path, monkeypatch, capsys):
    from zoo import predictor

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "card", lambda name: recurrent().card)
    monkeypatch.setattr(predictor, "load", lambda name: recurrent())
    written("clip.mp4")
    predict.main(["clip.mp4", "--stream", "--model", "tiny_lstm"])
    predict.main(["clip.mp4", "--stream", "--model", "tiny_lstm", "--json", "--top", "2"])
    out, told = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["0.0", "1.0", "2.0", "2.3"]
    rows = [json.loads(line) for line in lines[4:]]
    assert [row["seconds"] for row in rows] == [0.0, 1.0, 2.0, 2.3]
    assert all(len(row["predictions"]) == 2 for row in rows)
    assert "24 frames" in told
    assert "0 dropped" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clip-timeline-2.png", "clip-timeline.png", "clip.mp4"
    ]  # fmt: skip
    with pytest.raises(UserError, match="--timeline is drawn with --stream"):
        predict.main(["clip.mp4", "--timeline", "x.png"])
