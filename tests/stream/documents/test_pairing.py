from stream.documents.pairing import RunPairing


def test_a_series_that_appears_in_an_open_run_gets_it():
    pairing = RunPairing()
    pairing.start_run("r1")
    pairing.add_series("0000-a", {"a", "1"})
    assert pairing.scan_of("r1") == "0000-a"
    assert pairing.run_of("0000-a") == "r1"


def test_a_series_with_no_run_open_gets_the_next_one():
    pairing = RunPairing()
    pairing.start_run("r0")
    pairing.stop_run("r0")
    pairing.add_series("0000-a", {"a"})
    assert pairing.run_of("0000-a") is None
    pairing.start_run("r1")
    assert pairing.scan_of("r1") == "0000-a"
    assert pairing.scan_of("r0") is None


def test_a_series_gets_the_run_with_positions_that_has_just_stopped_unless_another_is_open():
    pairing = RunPairing()
    pairing.start_run("r0")
    pairing.note_positions("r0")
    pairing.stop_run("r0")
    pairing.start_run("r1")
    pairing.add_series("0000-a", {"a"})
    assert pairing.scan_of("r1") == "0000-a"
    pairing.stop_run("r1")
    pairing.add_series("0001-b", {"b"})
    assert pairing.scan_of("r0") == "0001-b"


def test_a_run_that_is_given_up_gets_no_series_any_more():
    pairing = RunPairing()
    pairing.start_run("r0")
    pairing.note_positions("r0")
    pairing.stop_run("r0")
    pairing.give_up_run("r0")
    pairing.add_series("0000-a", {"a"})
    assert pairing.run_of("0000-a") is None


def test_a_detector_restarted_in_the_middle_of_a_run_is_an_orphan_for_good():
    pairing = RunPairing()
    pairing.start_run("r1")
    pairing.add_series("0000-a", {"a"})
    pairing.add_series("0001-b", {"b"})
    pairing.stop_run("r1")
    pairing.start_run("r2")
    assert pairing.run_of("0001-b") is None
    pairing.add_series("0002-c", {"c"})
    assert pairing.scan_of("r2") == "0002-c"


def test_a_named_series_is_waited_for_also_after_the_run_has_stopped():
    pairing = RunPairing()
    pairing.start_run("r1", series="b")
    pairing.add_series("0000-a", {"a"})
    assert pairing.scan_of("r1") is None
    pairing.stop_run("r1")
    pairing.start_run("r2", series="c")
    pairing.add_series("0001-b", {"b", "17"})
    assert pairing.scan_of("r1") == "0001-b"
    assert pairing.scan_of("r2") is None


def test_a_run_may_name_the_number_or_the_uid_of_a_series_that_is_there_already():
    pairing = RunPairing()
    pairing.add_series("0000-a", {"a", "17"})
    pairing.start_run("r1", series="17")
    assert pairing.scan_of("r1") == "0000-a"


def test_a_number_used_again_means_the_newest_series_without_a_run():
    pairing = RunPairing()
    pairing.add_series("0000-1", {"1"})
    pairing.start_run("r1", series="1")
    pairing.add_series("0001-1", {"1"})
    pairing.start_run("r2", series="1")
    assert (pairing.scan_of("r1"), pairing.scan_of("r2")) == ("0000-1", "0001-1")


def test_a_series_given_up_gets_no_later_run_by_order_but_one_that_names_it():
    pairing = RunPairing()
    pairing.add_series("0000-a", {"a"})
    pairing.give_up("0000-a")
    pairing.start_run("r1")
    assert pairing.scan_of("r1") is None
    pairing.start_run("r2", series="a")
    assert pairing.scan_of("r2") == "0000-a"


def test_hearing_of_a_run_or_a_series_twice_changes_nothing():
    pairing = RunPairing()
    pairing.start_run("r1")
    pairing.add_series("0000-a", {"a"})
    pairing.start_run("r1")
    pairing.add_series("0000-a", {"a"})
    assert pairing.run_of("0000-a") == "r1"


def test_of_two_open_runs_the_later_one_gets_the_series():
    pairing = RunPairing()
    pairing.start_run("outer")
    pairing.start_run("inner")
    pairing.add_series("0000-a", {"a"})
    assert pairing.run_of("0000-a") == "inner"
