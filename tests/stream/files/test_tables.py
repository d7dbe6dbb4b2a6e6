import numpy as np
import pytest

from stream.files.tables import read_table

WANTED = [[1.5, -2.0], [3.0, 4.0], [5.0, 6.0]]  # y, x


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("plain.csv", "1.5,-2\n3,4\n5,6\n", None),
        ("savetxt.csv", "# y,x\n1.5,-2\n3,4\n5,6\n", None),
        ("header.csv", "y_um,x_um\n1.5,-2\n3,4\n\n5,6\n", None),
        ("other-order.txt", "frame  x(um)  y(um)\n0 -2 1.5\n1 4 3\n2 6 5\n", None),
        ("motors.csv", "Stage-X;Stage-Y\n-2;1.5\n4;3\n6;5\n", None),
        ("named.csv", "a,b\n-2,1.5\n4,3\n6,5\n", ("b", "A")),
        ("numbered.dat", "0\t-2\t1.5\n1\t4\t3\n2\t6\t5\n", ("2", "1")),
        ("excel.csv", "\ufeffy,x\r\n1.5,-2\r\n3,4\r\n5,6\r\n", None),
    ],
)
def test_columns_are_found_by_name_number_or_because_there_are_two(tmp_path, name, text, columns):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(read_table(path, columns), WANTED)


def test_numpy_arrays_are_tables_as_well(tmp_path):
    path = tmp_path / "positions.npy"
    np.save(path, np.array(WANTED))
    np.testing.assert_array_equal(read_table(path), WANTED)
    np.save(path, np.array([(x, y) for y, x in WANTED], [("x", "f4"), ("y", "f4")]))
    np.testing.assert_array_equal(read_table(path), WANTED)


def test_a_position_that_is_not_known_stays_so(tmp_path):
    path = tmp_path / "positions.csv"
    path.write_text("1,2\nnan,nan\n")
    assert np.isnan(read_table(path)[1]).all()


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        ("1,2\n3,four\n", None, "line 2 is '3,four', wanted numbers"),
        ("1,2\n3\n", None, "line 2 has 1 values, those before it 2"),
        ("1,2,3\n", None, "found 3 columns: say which are y and x"),
        ("a,b,c\n1,2,3\n", None, "found 3 columns called a, b, c: say which"),
        ("y,x\n1,2\n", ("z", "x"), "wanted columns z and x, found 2 columns called y, x"),
        ("1,2\n", ("0", "2"), "wanted columns 0 and 2, found 2 columns"),
        ("1\n2\n", None, r"wanted positions \(frame, 2\)"),
        ("", None, "there is no line of numbers"),
    ],
)
def test_what_is_no_table_of_positions_is_named_with_its_line(tmp_path, text, columns, words):
    path = tmp_path / "positions.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        read_table(path, columns)
    assert str(path) in str(caught.value)


def test_what_holds_no_text_or_python_objects_is_refused(tmp_path):
    for name, content in (("a.npy", b"\x80\x04K\x01."), ("b.csv", b"\xff\xfe\x00\x01")):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"wanted (positions as numbers|a \.npy file)"):
            read_table(path)
