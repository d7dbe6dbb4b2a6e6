"""What documents say of files, taken at its word only where it makes sense."""

import numpy as np
import pytest

from stream.documents.captures import MOST_PIECES
from stream.documents.codec import DocumentError, decode_document, to_msgpack
from stream.documents.position_reader import PositionFields, PositionReader
from stream.documents.stream_files import StreamFiles
from tests.helpers.stream.flown import FIELDS, FlownRun
from tests.helpers.stream.wrong_messages import on_the_wire
from tests.helpers.stream.wrong_values import ARRAYS, WRONG, changed, wrong_messages

VALUES = np.arange(12.0).reshape(6, 2)
PIECES = {"descriptor": 1, "stream_resource": 2, "stream_datum": 4}  # place in a run's documents


@pytest.fixture
def run(tmp_path):
    run = FlownRun(tmp_path / "panda.h5", VALUES)
    run.write(6)
    return run


@pytest.fixture
def documents(run):
    return [*run.opening, *run.datums(0, 6)]


def reader(run, **changes):
    return PositionReader(PositionFields(**{"unit": "um", **changes}), StreamFiles([run.path.parent]))


def read_all(it, documents):
    for name, document in documents:
        it.read(name, document)
    return it.read_files()


def replaced(documents, name, path, value):
    place = PIECES[name]
    return [*documents[:place], (name, changed(documents[place][1], path, value)), *documents[place + 1 :]]


def wrong_documents(documents, name):
    good = documents[PIECES[name]][1]
    if name != "descriptor":
        return (wrong for _, wrong in wrong_messages(good, WRONG | ARRAYS))
    path = ("data_keys", FIELDS[0])
    key = {"external": "STREAM:", "shape": [1]}
    return (changed(good, path, wrong) for _, wrong in wrong_messages(key, WRONG | ARRAYS))


@pytest.mark.parametrize("name", PIECES)
def test_a_document_with_any_wrong_field_is_refused_or_harmless(run, documents, name):
    place, n_refused, n_wrong = PIECES[name], 0, 0
    for wrong in wrong_documents(documents, name):
        for message in on_the_wire(name, wrong, to_msgpack):
            n_wrong += 1
            heard = [*documents[:place], decode_document(message[0]), *documents[place + 1 :]]
            try:
                rows = read_all(reader(run), heard)
            except DocumentError:
                n_refused += 1
            else:
                assert set(map(tuple, rows.raw)) <= set(map(tuple, VALUES))
    assert n_wrong > 60
    assert n_refused > n_wrong / 4


@pytest.mark.parametrize(
    ("name", "path", "value", "words"),
    [
        ("stream_datum", ("stream_resource",), "lost", "unknown stream_resource 'lost'"),
        ("stream_datum", ("indices", "stop"), 7, "7 indices and 6 seq_nums"),
        ("stream_datum", ("indices", "start"), 8, "start <= stop"),
        ("stream_datum", ("seq_nums", "start"), 0, "whole numbers from 1"),
        ("stream_resource", ("mimetype",), "image/tiff", "wanted application/x-hdf5"),
        ("stream_resource", ("parameters",), {"path": "y"}, "wanted the name of a 'dataset'"),
        ("stream_resource", ("uri",), "http://host/panda.h5", "wanted file://host/path"),
        ("stream_resource", ("uri",), "file://localhost/a%00b.h5", "wanted file://host/path"),
        ("stream_resource", ("uri",), "file://localhost/etc/passwd", "positions.folders"),
        ("descriptor", ("data_keys", FIELDS[0], "shape"), [1, 320], "wanted one number per capture"),
    ],
)
def test_the_sentence_says_what_was_wanted_and_what_came(run, documents, name, path, value, words):
    with pytest.raises(DocumentError, match=words):
        read_all(reader(run), replaced(documents, name, path, value))


def test_a_number_of_captures_that_does_not_divide_names_the_settings(run, documents):
    documents = replaced(documents, "descriptor", ("data_keys", FIELDS[0], "shape"), [3])
    with pytest.raises(DocumentError, match=r"frames_per_event, or positions\.captures_per_frame"):
        read_all(reader(run, frames_per_event=2), documents)


def test_documents_that_no_run_engine_numbered_count_by_their_indices(run, documents):
    for place in (4, 5):
        documents[place][1]["seq_nums"] = {"start": 0, "stop": 0}
    assert read_all(reader(run), documents).numbers.tolist() == list(range(6))


def test_events_that_begin_later_than_the_file_have_their_rows(run, documents):
    for place in (4, 5):
        documents[place][1]["seq_nums"] = {"start": 11, "stop": 17}
    rows = read_all(reader(run), documents)
    assert rows.numbers.tolist() == list(range(10, 16))
    np.testing.assert_array_equal(rows.raw, VALUES)


def test_the_captures_of_a_frame_may_come_in_pieces_in_any_order(run):
    it = reader(run, captures_per_frame=3)
    read_all(it, run.opening)
    numbers = []
    for start, stop in ((4, 6), (0, 1), (2, 4), (1, 2)):
        numbers += read_all(it, run.datums(start, stop)).numbers.tolist()
    assert numbers == [1, 0]
    assert not it.read_files().numbers.size
    assert not it.flown.is_waiting


def test_pieces_of_one_axis_that_stay_alone_are_dropped_and_disturb_nothing(run):
    it = reader(run)
    read_all(it, run.opening)
    for start in range(10, 2 * MOST_PIECES + 30, 2):
        for document in run.datums(start, start + 1, FIELDS[:1]):
            it.read(*document)
    assert read_all(it, run.datums(0, 6)).numbers.tolist() == list(range(6))
    for document in run.datums(10, 12, FIELDS[1:]):
        it.read(*document)
    assert not it.read_files().numbers.size
    assert not it.flown.is_waiting
