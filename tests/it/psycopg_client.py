"""What applications do with psycopg 3, connected as libpq's environment says. psycopg binds parameters on the server."""

import psycopg
from psycopg import errors

with psycopg.connect(autocommit=True) as connection:
    row = connection.execute(
        "select %s::text, %s::int + 1, %s::bytea", ("server-side parameter", 41, b"\x00\xff")
    ).fetchone()
    assert row == ("server-side parameter", 42, b"\x00\xff"), row

    for number in range(20):
        row = connection.execute("select %s::int * 2", (number,), prepare=True).fetchone()
        assert row == (number * 2,), row

    row = connection.execute("select %s::int8, %b::float8", (2**40, 0.5)).fetchone()
    assert row == (2**40, 0.5), row

    with connection.transaction(), connection.cursor(name="in_portions") as cursor:
        cursor.itersize = 100
        cursor.execute("select generate_series(1, %s::int)", (1000,))
        assert sum(value for (value,) in cursor) == 500500

    connection.execute("create temporary table parts (id int, name text)")
    with connection.pipeline():
        cursor = connection.cursor()
        cursor.executemany("insert into parts values (%s, %s)", [(n, f"part {n}") for n in range(500)])
    assert connection.execute("select count(*) from parts").fetchone() == (500,)

    with connection.cursor().copy("copy parts from stdin") as copy:
        for number in range(500, 1000):
            copy.write_row((number, f"part {number}"))
    assert connection.execute("select count(distinct id) from parts").fetchone() == (1000,)

    try:
        connection.execute("select %s::int / 0", (1,))
    except errors.DivisionByZero as error:
        assert error.sqlstate == "22012"
    else:
        raise AssertionError("a division by zero passed")
    assert connection.execute("select 1").fetchone() == (1,)

print("all passed")
