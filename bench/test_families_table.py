"""The table of covered classes says what the registry covers."""

import docs_table
import families_table


def test_the_documented_table_is_of_these_families():
    shown = families_table.PAGE.read_text(encoding="utf-8")
    assert docs_table.marked("families", families_table.table()) in shown
