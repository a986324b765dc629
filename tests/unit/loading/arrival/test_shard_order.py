from p2pmodel.loading.arrival.shard_order import TensorRange, file_after_file, files_together, numbered, without_number

PLACES = [
    TensorRange("lm_head.weight", "3", 10, 20),
    TensorRange("a", "1", 10, 60),
    TensorRange("b", "1", 60, 100),
    TensorRange("c", "2", 10, 100),
    TensorRange("d", "3", 20, 50),
]


def names(places: list[TensorRange]) -> str:
    return " ".join(place.name for place in places)


def test_shard_by_shard_from_a_chosen_one() -> None:
    assert names(file_after_file(PLACES, ["1", "2", "3"], 0)) == "a b c lm_head.weight d"
    assert names(file_after_file(PLACES, ["1", "2", "3"], 5)) == "lm_head.weight d a b c"


def test_as_they_arrive_where_files_are_downloaded_together() -> None:
    sizes = {"1": 100, "2": 100, "3": 50}
    assert names(files_together(PLACES, sizes, 2)) == "a b c lm_head.weight d"
    assert names(files_together(PLACES, sizes, 3)) == "lm_head.weight a b c d"


def test_numbers_sort_as_the_names_are_given_and_come_off_again() -> None:
    given = [f"layers.{number}.weight" for number in (10, 9, 1)]
    found = numbered(given)
    assert sorted(found.values()) == [found[name] for name in given]
    assert [without_number(name) for name in found.values()] == given
    assert without_number("12345678x") == "12345678x"
