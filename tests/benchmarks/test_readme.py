"""A generated table replaces itself and nothing else."""

import pytest

from benchmarks import readme


def test_only_what_stands_between_the_comments_is_replaced(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n")
    readme.put("x", readme.markdown(["k", "n"], [["c", "1"]]), path)
    assert path.read_text() == "a\n<!-- x: begin -->\n| k | n |\n| --- | ---: |\n| c | 1 |\n<!-- x: end -->\nb\n"
    with pytest.raises(ValueError, match="y: begin"):
        readme.put("y", "new", path)


def test_the_readme_has_a_place_for_each_table():
    text = readme.README.read_text()
    for name in ("compiled", "traffic"):
        assert text.index(f"<!-- {name}: begin -->") < text.index(f"<!-- {name}: end -->")
