import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo.data.sampling import clip_times, clips_to_cover

_sampling = {
    "duration": st.floats(0.001, 200),
    "num_frames": st.integers(1, 64),
    "frame_rate": st.sampled_from([1, 6.25, 10, 23.976, 25, 30000 / 1001, 60]),
    "num_clips": st.integers(1, 12),
}


def _quiet_times(duration, **sampling):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clip_times(duration, **sampling)


@settings(deadline=None)
@given(**_sampling)
def test_times_are_rising_within_the_video_and_on_the_grid(duration, num_frames, frame_rate, num_clips):
    times = _quiet_times(duration, num_frames=num_frames, frame_rate=frame_rate, num_clips=num_clips)
    assert times.shape == (num_clips, num_frames)
    assert times.dtype == np.float64
    assert times.min() >= 0
    assert times.max() < duration
    assert (np.diff(times, axis=1) >= 0).all()
    assert (np.diff(times, axis=0) >= 0).all()
    np.testing.assert_allclose(times * frame_rate, np.round(times * frame_rate), atol=1e-9)


@settings(deadline=None)
@given(**_sampling)
def test_windows_are_whole_where_they_fit_and_evenly_spread(duration, num_frames, frame_rate, num_clips):
    times = _quiet_times(duration, num_frames=num_frames, frame_rate=frame_rate, num_clips=num_clips)
    samples = sum(1 for k in range(int(duration * frame_rate) + 2) if k / frame_rate < duration - 0.0011) or 1
    if samples < num_frames:
        expected = [min(k, samples - 1) / frame_rate for k in range(num_frames)]
        np.testing.assert_allclose(times, [expected] * num_clips)
        return
    starts = times[:, 0] * frame_rate
    np.testing.assert_allclose(
        times - times[:, :1], np.tile(np.arange(num_frames) / frame_rate, (num_clips, 1)), atol=1e-9
    )
    if num_clips == 1:
        assert abs(starts[0] - (samples - num_frames) / 2) < 0.501
    else:
        assert starts[0] == 0
        assert starts[-1] == pytest.approx(samples - num_frames)
        assert np.ptp(np.diff(starts)) <= 2  # grid steps


@pytest.mark.parametrize(
    ("duration", "num_frames", "num_clips", "expected"),
    [
        (4.0, 4, 1, [[6, 7, 8, 9]]),
        (4.0, 4, 2, [[0, 1, 2, 3], [12, 13, 14, 15]]),
        (4.0, 4, 3, [[0, 1, 2, 3], [6, 7, 8, 9], [12, 13, 14, 15]]),
        (4.0, 16, 2, [range(16)] * 2),
        (4.2, 4, 2, [[0, 1, 2, 3], [13, 14, 15, 16]]),  # at 4.0 s there is one more sample
        (4.001, 4, 2, [[0, 1, 2, 3], [12, 13, 14, 15]]),  # a millisecond is how a container rounds
    ],
)
def test_known_windows_at_four_a_second(duration, num_frames, num_clips, expected):
    times = clip_times(duration, num_frames=num_frames, frame_rate=4, num_clips=num_clips)
    np.testing.assert_array_equal(times * 4, [list(row) for row in expected])


def test_a_short_video_repeats_its_last_frame_and_says_so():
    with pytest.warns(
        UserWarning, match=r"lasts 0\.75 s and the model sees 1\.50 s: its last frame is repeated"
    ) as notices:
        times = clip_times(0.75, num_frames=6, frame_rate=4, num_clips=2)
    assert len(notices) == 1
    np.testing.assert_array_equal(times * 4, [[0, 1, 2, 2, 2, 2]] * 2)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("frame_rate", [23.976, 24, 25, 30000 / 1001, 30, 50, 60])
@pytest.mark.parametrize("samples", [1, 2, 63, 64, 1000])
def test_a_video_at_the_sampling_rate_has_as_many_samples_as_frames(samples, frame_rate):
    for shift in (-0.001, 0, 0.001):
        duration = samples / frame_rate + shift
        times = clip_times(duration, num_frames=samples, frame_rate=frame_rate, num_clips=1)
        np.testing.assert_allclose(times[0] * frame_rate, np.arange(samples))
        assert clips_to_cover(duration, num_frames=samples, frame_rate=frame_rate) == 1


@settings(deadline=None)
@given(duration=_sampling["duration"], num_frames=_sampling["num_frames"], frame_rate=_sampling["frame_rate"])
def test_clips_to_cover_is_the_least_number_that_leaves_nothing_out(duration, num_frames, frame_rate):
    sampling = {"num_frames": num_frames, "frame_rate": frame_rate}
    every = set(_quiet_times(duration, num_frames=15_000, frame_rate=frame_rate, num_clips=1)[0])
    clips = clips_to_cover(duration, **sampling)
    assert set(_quiet_times(duration, num_clips=clips, **sampling).ravel()) == every
    assert clips == 1 or (clips - 1) * num_frames < len(every)
