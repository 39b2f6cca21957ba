import sqlalchemy

from connexon.service.database import Database


def test_each_test_gets_an_empty_database(database_url: str) -> None:
    _make_a_table(database_url)


def test_no_test_sees_another_ones_tables(database_url: str) -> None:
    _make_a_table(database_url)


def _make_a_table(url: str) -> None:
    database = Database(url)
    with database.writing() as connection:
        connection.execute(sqlalchemy.text("create table lots (number integer)"))
    database.close()
