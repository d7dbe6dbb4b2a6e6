import numpy as np

from stream.record.error_curve import FILE_NAME, EpochError, read_error_curve, write_error_curve

ROWS = [EpochError(1.0, 0.5, 64, 12.5), EpochError(1.5, 0.25, 128, 13.0)]


def test_a_curve_is_read_as_it_was_written(tmp_path):
    write_error_curve(tmp_path, ROWS)
    curve = read_error_curve(tmp_path)
    assert [EpochError(*row) for row in curve.tolist()] == ROWS
    assert curve.dtype.names == EpochError._fields


def test_before_the_first_epoch_there_is_a_curve_of_nothing(tmp_path):
    assert read_error_curve(tmp_path)["error"].shape == (0,)
    write_error_curve(tmp_path, [])
    assert read_error_curve(tmp_path)["error"].shape == (0,)


def test_a_longer_curve_takes_the_place_of_the_shorter_and_numpy_alone_reads_it(tmp_path):
    write_error_curve(tmp_path, ROWS[:1])
    write_error_curve(tmp_path, ROWS)
    np.testing.assert_array_equal(np.load(tmp_path / FILE_NAME)["n_frames"], [64, 128])
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
