import numpy as np
import pytest

from stream.steering.policy import Policy
from stream.steering.record import DecisionRecord, RecordError, read, replay
from tests.helpers.stream.decisions import MIDDLE, conversation, record_of
from tests.helpers.stream.policies import ILLUMINATION, image, policy


def test_every_decision_is_made_again_to_the_last_bit(tmp_path):
    answers = conversation(tmp_path)
    again = list(replay(record_of(tmp_path)))
    assert [one.difference for one in again] == [""] * len(answers)
    assert [one.answer.map_hash for one in again] == [answer.map_hash for answer, _ in answers]
    assert [one.n_points for one in again] == [len(points) for _, points in answers]
    assert list(tmp_path.glob("decisions-*.log")) == []
    points_after = np.concatenate([points for _, points in answers[6:]])
    assert (points_after[:, 0] <= MIDDLE).all()
    assert any(answer.reasons[0].startswith("importance") for answer, _ in answers)


def test_a_policy_that_was_started_anew_goes_on_in_the_same_record(tmp_path):
    answers = conversation(tmp_path, restarts=(4,))
    again = list(replay(record_of(tmp_path)))
    assert [one.answer.sequence for one in again] == list(range(len(answers)))
    assert not any(one.difference for one in again)


def test_decisions_after_exposures_that_failed_are_made_again_also_by_a_policy_started_anew(tmp_path):
    answers = conversation(tmp_path, restarts=(5,), fails=(2, 3))
    assert sum(bool(entry.failed) for entry in read(record_of(tmp_path)) if hasattr(entry, "failed")) == 3
    again = list(replay(record_of(tmp_path)))
    assert [one.difference for one in again] == [""] * len(answers)


def test_the_record_is_small(tmp_path):
    conversation(tmp_path)
    n_bytes = sum(image(0).object.nbytes for _ in range(6))
    assert record_of(tmp_path).stat().st_size < n_bytes / 20


def test_a_record_that_was_touched_anywhere_is_found(tmp_path):
    conversation(tmp_path)
    file = record_of(tmp_path)
    whole = file.read_bytes()
    assert len(list(read(file))) == 9
    for at in [0, 1, 3, 5, *np.linspace(24, len(whole) - 1, 23).astype(int)]:
        touched = bytearray(whole)
        touched[at] ^= 1
        file.write_bytes(touched)
        with pytest.raises(RecordError, match="entry"):
            list(read(file))
    file.write_bytes(whole[:-5])
    with pytest.raises(RecordError, match="entry 8"):
        list(read(file))


def test_half_an_entry_that_a_crash_left_hides_nothing_of_what_comes_later(tmp_path):
    def begin():
        DecisionRecord(tmp_path / "scans", tmp_path, ILLUMINATION).begin(policy(), "run")

    begin()
    (file,) = tmp_path.glob("decisions-*.log")
    whole = file.read_bytes()
    for n in (0, 1, 4, 23, len(whole) - 1):
        file.write_bytes(whole + whole[:n])
        begin()
        assert file.read_bytes() == whole + whole


def test_a_decision_that_was_not_made_by_this_policy_is_told(tmp_path, monkeypatch):
    """With digests that are right, as an able forger would write them."""
    recommend = Policy.recommend

    def forged(self, *arguments, **options):
        answer, points = recommend(self, *arguments, **options)
        return answer, points + 1e-3 * (answer.sequence == 4)

    monkeypatch.setattr(Policy, "recommend", forged)
    answers = conversation(tmp_path, n_questions=5)
    monkeypatch.undo()
    assert [one.difference for one in replay(record_of(tmp_path))] == [""] * 4 + ["points"]
    assert len(answers) == 5
