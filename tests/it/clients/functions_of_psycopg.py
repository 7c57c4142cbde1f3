"""What applications do with psycopg 3, connected as libpq's environment says: each function is a line of a table in docs/clients.md."""

import asyncio
import sys
import threading
import time

import psycopg
from psycopg import errors, pq


def connect(conninfo="", **more):
    return psycopg.connect(conninfo, autocommit=True, **more)


def value(connection, sql, *parameters, **more):
    return connection.execute(sql, parameters or None, **more).fetchone()[0]


def parameters_and_binary():
    with connect() as connection:
        row = connection.execute(
            "select %s::text, %s::int + 1, %s::bytea, %b::float8", ("text", 41, b"\x00\xff", 0.5), binary=True
        ).fetchone()
        assert row == ("text", 42, b"\x00\xff", 0.5), row
        rows = connection.execute("select n, n::text, now(), null::int from generate_series(1, 5000) n", binary=True)
        assert sum(row[0] for row in rows) == 12502500


def prepared():
    with connect() as connection:
        connection.prepare_threshold = 0
        for number in range(300):
            assert value(connection, f"select %s::int + {number % 150}", number) == number + number % 150


def pipeline():
    with connect() as connection:
        connection.execute("create temporary table parts (id int primary key, name text)")
        with connection.pipeline():
            connection.cursor().executemany("insert into parts values (%s, %s)", [(n, f"part {n}") for n in range(500)])
        with connection.pipeline() as pipe:
            # psycopg tells of an error with whichever call comes after it has arrived, and of what was skipped because of it with the next.
            told = []
            for act in (
                lambda: connection.execute("insert into parts values (1, 'again')"),
                lambda: connection.execute("insert into parts values (1000, 'skipped')"),
                pipe.sync,
                pipe.sync,
            ):
                try:
                    act()
                except psycopg.Error as error:
                    told.append(type(error))
            assert told and told[0] is errors.UniqueViolation and set(told[1:]) <= {errors.PipelineAborted}, told
            assert connection.execute("select 7").fetchone() == (7,)
        assert value(connection, "select count(*) from parts") == 500


def ten_thousand_in_a_pipeline():
    with connect() as connection, connection.pipeline():
        cursors = [connection.execute("select repeat('x', 2000), %s::int", (n,)) for n in range(10000)]
        assert sum(cursor.fetchone()[1] for cursor in cursors) == 49995000


def copy():
    with connect() as connection:
        connection.execute("create temporary table parts (id int, name text)")
        with connection.cursor().copy("copy parts from stdin") as stream:
            for number in range(2000):
                stream.write_row((number, f"part {number}"))
        with connection.cursor().copy("copy parts from stdin (format binary)") as stream:
            stream.set_types(["int4", "text"])
            for number in range(2000, 4000):
                stream.write_row((number, f"part {number}"))
        with connection.cursor().copy("copy parts to stdout (format binary)") as stream:
            stream.set_types(["int4", "text"])
            assert sum(row[0] for row in stream.rows()) == 7998000
        try:
            with connection.cursor().copy("copy parts from stdin") as stream:
                stream.write("not a number\tpart\n")
        except errors.InvalidTextRepresentation:
            assert value(connection, "select count(*) from parts") == 4000
        else:
            raise AssertionError("a wrong row was copied")


def notifications():
    with connect() as hears, connect() as tells:
        hears.execute("listen lanterns")
        for number in range(3):
            tells.execute("select pg_notify('lanterns', %s)", (f"lantern {number}",))
        payloads = [notice.payload for notice in hears.notifies(timeout=20, stop_after=3)]
        assert payloads == ["lantern 0", "lantern 1", "lantern 2"], payloads


def notices():
    with connect() as connection:
        said = []
        connection.add_notice_handler(lambda notice: said.append(f"{notice.severity} {notice.message_primary}"))
        connection.execute("do $$ begin raise notice 'one'; raise warning 'two'; end $$")
        assert said == ["NOTICE one", "WARNING two"], said


def when_it_runs(connection, act):
    """Runs a statement that lasts, and `act` once PostgreSQL has it."""
    name = f"sleeper {connection.info.backend_pid} {time.time_ns()}"
    connection.execute("select set_config('application_name', %s, false)", (name,))

    def watch():
        with connect() as other:
            while not value(
                other,
                "select count(*) from pg_stat_activity where application_name = %s and state = 'active' and query ~ 'pg_sleep'",
                name[:63],
            ):
                time.sleep(0.02)
        try:
            act()
        except psycopg.Error as error:
            went_wrong.append(error)

    went_wrong = []
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        connection.execute("select pg_sleep(60)")
    except errors.QueryCanceled as error:
        assert error.sqlstate == "57014"
    else:
        raise AssertionError("it was not cancelled")
    watcher.join()
    assert not went_wrong, went_wrong
    assert value(connection, "select 1") == 1


def cancel_encrypted():
    with connect() as connection:
        when_it_runs(connection, lambda: connection.cancel_safe(timeout=20))


def cancel_plain():
    with connect() as connection:
        when_it_runs(connection, connection.cancel)


def cursors():
    with connect() as connection, connection.transaction():
        with connection.cursor(name="in_portions") as cursor:
            cursor.itersize = 100
            cursor.execute("select generate_series(1, %s::int)", (1000,))
            assert sum(number for (number,) in cursor) == 500500
        with connection.cursor(name="scrolls", scrollable=True) as cursor:
            cursor.execute("select generate_series(1, 1000)")
            cursor.scroll(500)
            assert cursor.fetchone() == (501,)
            cursor.scroll(-2)
            assert cursor.fetchone() == (500,)
    with connect() as connection:
        cursor = connection.cursor()
        assert [row[0] for row in cursor.stream("select generate_series(1, 3000)")][-1] == 3000


def most_parameters():
    with connect() as connection:
        holes = ",".join(["%s::int"] * 65535)
        numbers = list(range(65535))
        assert value(connection, f"select (array[{holes}])[65535]", *numbers) == 65534
        try:
            value(connection, f"select (array[{holes},%s::int])[65536]", *numbers, 65535)
        except psycopg.OperationalError as error:
            assert "65535" in str(error), error
        else:
            raise AssertionError("more parameters than the protocol has")
        assert value(psycopg.connect(autocommit=True), "select 1") == 1


def transactions():
    with psycopg.connect() as connection:
        connection.execute("create temporary table parts (id int primary key)")
        with connection.transaction():
            connection.execute("insert into parts values (1)")
            try:
                with connection.transaction():
                    connection.execute("insert into parts values (1)")
            except errors.UniqueViolation:
                pass
            connection.execute("insert into parts values (2)")
        assert connection.info.transaction_status == pq.TransactionStatus.INTRANS
        try:
            connection.execute("select 1 / 0")
        except errors.DivisionByZero:
            assert connection.info.transaction_status == pq.TransactionStatus.INERROR
        try:
            connection.execute("select 1")
        except errors.InFailedSqlTransaction as error:
            assert error.sqlstate == "25P02"
        else:
            raise AssertionError("a statement passed in a failed transaction")
        connection.rollback()
        assert connection.info.transaction_status == pq.TransactionStatus.IDLE


def two_phases():
    with connect() as connection:
        allowed = int(value(connection, "show max_prepared_transactions"))
    assert allowed > 0
    with psycopg.connect() as connection:
        for act in (connection.tpc_commit, connection.tpc_rollback):
            connection.tpc_begin(connection.xid(1, f"{act.__name__} {connection.info.backend_pid}", ""))
            connection.execute("select 1")
            connection.tpc_prepare()
            act()
    with connect() as connection:
        connection.execute("drop table if exists two_phases")
        connection.execute("create table two_phases (id int primary key deferrable initially deferred)")
        for sql, state in (
            ("begin; insert into two_phases values (1), (1); prepare transaction 'it breaks'", "23505"),
            ("commit prepared 'there is none'", "42704"),
        ):
            try:
                connection.execute(sql)
            except psycopg.Error as error:
                assert error.sqlstate == state, (error.sqlstate, state)
            else:
                raise AssertionError(f"no {state}")
            assert connection.info.transaction_status == pq.TransactionStatus.IDLE


def in_asyncio():
    async def one(number):
        async with await psycopg.AsyncConnection.connect(autocommit=True) as connection:
            row = await (await connection.execute("select %s::int, pg_sleep(0.1)", (number,))).fetchone()
            return row[0]

    async def many():
        assert await asyncio.gather(*(one(number) for number in range(8))) == list(range(8))

    asyncio.run(many())


def wrong_in_every_state():
    """SQL that fails: simple, prepared, in a pipeline, in a transaction, in a cursor, in COPY; each as PostgreSQL says it."""
    with connect() as connection:

        def fails(act, state):
            try:
                act()
            except psycopg.Error as error:
                assert error.sqlstate == state, (error.sqlstate, state)
            else:
                raise AssertionError(f"no {state}")
            assert connection.info.transaction_status == pq.TransactionStatus.IDLE
            assert value(connection, "select 1") == 1

        fails(lambda: connection.execute("selct 1"), "42601")
        fails(lambda: connection.execute("select 1; select 1 / 0; select 2"), "22012")
        fails(lambda: connection.execute("select %s::int / 0", (1,)), "22012")
        fails(lambda: connection.execute("select %s::int", ("no number",)), "22P02")
        fails(lambda: connection.execute("select 1 / (n - 500) from generate_series(1, 1000) n"), "22012")
        fails(lambda: connection.execute("select * from no_such_table"), "42P01")
        fails(lambda: connection.execute("select 1 / %s::int", (0,), prepare=True), "22012")
        fails(lambda: connection.execute("do $$ begin raise exception 'own' using errcode = 'P0042'; end $$"), "P0042")
        fails(lambda: connection.execute("set statement_timeout = 50; select pg_sleep(10)"), "57014")
        connection.execute("set statement_timeout = 0")

        def copied():
            with connection.cursor().copy("copy (select 1 / (n - 3) from generate_series(1, 9) n) to stdout") as stream:
                list(stream)

        fails(copied, "22012")

        def given_up():
            with connection.cursor().copy("copy parts from stdin") as stream:
                stream.write("1\tpart\n")
                raise psycopg.errors.DataError("the client gives up")

        connection.execute("create temporary table parts (id int primary key deferrable initially deferred, name text)")
        try:
            given_up()
        except psycopg.errors.DataError:
            assert value(connection, "select count(*) from parts") == 0
        else:
            raise AssertionError("a COPY that its client gave up")

        def at_commit():
            connection.execute("begin; insert into parts values (1), (1)")
            assert connection.info.transaction_status == pq.TransactionStatus.INTRANS
            connection.execute("commit")

        fails(at_commit, "23505")

        def in_second_portion():
            with connection.transaction():
                with connection.cursor(name="breaks") as cursor:
                    cursor.execute("select 1 / (150 - n) from generate_series(1, 1000) n")
                    assert len(cursor.fetchmany(100)) == 100
                    cursor.fetchmany(100)

        fails(in_second_portion, "22012")
        fails(lambda: connection.execute("select lo_open(4294967295, 131072)"), "42704")


def wrong_in_a_pipeline():
    """What libpq is told before the Sync, after it, and of a pipeline that goes on behind it."""
    with connect() as connection:
        pgconn = connection.pgconn
        pgconn.enter_pipeline_mode()
        for sql in (b"select 1", b"select 1 / 0", b"select 2"):
            pgconn.send_query_params(sql, [])
        pgconn.send_flush_request()

        def next_result():
            result = pgconn.get_result()
            if result is not None and result.status != pq.ExecStatus.PIPELINE_SYNC:
                assert pgconn.get_result() is None
            return result

        status = pq.ExecStatus
        assert next_result().status == status.TUPLES_OK
        wrong = next_result()
        assert wrong.status == status.FATAL_ERROR and wrong.error_field(pq.DiagnosticField.SQLSTATE) == b"22012"
        assert next_result().status == status.PIPELINE_ABORTED
        pgconn.send_query_params(b"select 3", [])
        pgconn.pipeline_sync()
        pgconn.send_query_params(b"select 4", [])
        pgconn.pipeline_sync()
        assert next_result().status == status.PIPELINE_ABORTED
        assert next_result().status == status.PIPELINE_SYNC
        assert next_result().get_value(0, 0) == b"4"
        assert next_result().status == status.PIPELINE_SYNC
        pgconn.exit_pipeline_mode()
        assert connection.info.transaction_status == pq.TransactionStatus.IDLE
        assert value(connection, "select 5") == 5


def large_objects():
    with connect() as connection:
        data = bytes(range(256)) * 4096
        with connection.transaction():
            oid = value(connection, "select lo_from_bytea(0, %s)", data)
            handle = value(connection, "select lo_open(%s, 393216)", oid)
            assert value(connection, "select lo_lseek64(%s, 1000, 0)", handle) == 1000
            assert bytes(value(connection, "select loread(%s, 500)", handle)) == data[1000:1500]
        assert bytes(value(connection, "select lo_get(%s)", oid)) == data
        assert value(connection, "select lo_unlink(%s)", oid) == 1


def reads_why(state):
    """Rests in a session until it is told to go on, and is told the SQLSTATE with which it was ended meanwhile."""
    connection = connect()
    assert value(connection, "select 1") == 1
    print("rests", flush=True)
    sys.stdin.readline()
    try:
        connection.execute("select 1")
    except psycopg.OperationalError as error:
        assert error.sqlstate == state, (error.sqlstate, str(error))
        assert connection.closed, "it is over"
        print(error.diag.message_primary)
    else:
        raise AssertionError("the session goes on")


def left_open():
    """A transaction left open is rolled back when its client is gone, and its locks are given back."""
    with connect() as connection:
        connection.execute("drop table if exists left_open")
        connection.execute("create table left_open (id int)")
        left = psycopg.connect()
        left.execute("lock table left_open")
        left.execute("insert into left_open values (1)")
        left.pgconn.finish()
        connection.execute("set lock_timeout = '10s'")
        assert value(connection, "select count(*) from left_open") == 0


def ended_by_postgresql():
    with connect() as connection, connect() as other:
        other.execute("select pg_terminate_backend(%s)", (value(connection, "select pg_backend_pid()"),))
        try:
            connection.execute("select 1")
        except errors.AdminShutdown as error:
            assert error.sqlstate == "57P01" and "administrator command" in str(error), error
        else:
            raise AssertionError("a backend that was ended answered")


# --- what libpq has to choose from, for the table libpq ---


def direct_tls():
    with connect("sslnegotiation=direct") as connection:
        assert value(connection, "select 1") == 1
        assert connection.pgconn.ssl_in_use
        when_it_runs(connection, lambda: connection.cancel_safe(timeout=20))


def protocol_3_2():
    for wanted in ("3.2", "latest"):
        with connect(f"max_protocol_version={wanted}") as connection:
            assert value(connection, "select 1") == 1
            assert connection.pgconn.full_protocol_version == 30002, connection.pgconn.full_protocol_version
            when_it_runs(connection, lambda: connection.cancel_safe(timeout=20))
            when_it_runs(connection, connection.cancel)


def refused(conninfo, words):
    try:
        connect(conninfo)
    except psycopg.OperationalError as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"{conninfo} connected")


def at_least_3_2():
    with connect("min_protocol_version=3.2") as connection:
        assert connection.pgconn.full_protocol_version == 30002, connection.pgconn.full_protocol_version
        assert value(connection, "select 1") == 1


def tls_1_2():
    with connect("ssl_max_protocol_version=TLSv1.2") as connection:
        assert value(connection, "select 1") == 1
    with connect("ssl_min_protocol_version=TLSv1.3") as connection:
        assert value(connection, "select 1") == 1


def gss_first():
    with connect("gssencmode=prefer") as connection:
        assert value(connection, "select 1") == 1


def plain():
    refused("sslmode=disable", "TLS")


def channel_binding():
    refused("channel_binding=require", "channel binding")
    with connect("channel_binding=prefer require_auth=none") as connection:
        assert value(connection, "select 1") == 1


def session_attributes():
    for wanted in ("read-write", "primary", "any", "prefer-standby"):
        with connect(f"target_session_attrs={wanted}") as connection:
            assert value(connection, "select 1") == 1


def several_hosts():
    import os

    port = os.environ["PGPORT"]
    with connect(f"host=localhost,localhost port=1,{port} load_balance_hosts=disable") as connection:
        assert value(connection, "select 1") == 1


def start_parameters():
    with connect("application_name='the shop' client_encoding=latin1") as connection:
        assert value(connection, "show application_name") == "the shop"
        assert connection.info.encoding == "iso8859-1"
        assert value(connection, "select 'ä'") == "ä"


def options():
    with connect(r"options='-c search_path=pg_temp,\\ public --statement-timeout=7s'") as connection:
        assert value(connection, "show search_path") == "pg_temp, public"
        assert value(connection, "show statement_timeout") == "7s"
    refused("options='-c log_statement=none'", "log_statement")
    refused("options='-d 5'", "options")


def replication():
    refused("replication=database", "db_replication")


# --- the largest things, for the table large ---


def large_row():
    with connect() as connection:
        assert len(value(connection, "select repeat('x', 500 * 1024 * 1024)")) == 500 * 1024 * 1024


def large_statement():
    with connect() as connection:
        # PostgreSQL's lexer doubles the room of a literal, and refuses to have 1 GB of it: two literals.
        text = "x" * (256 * 1024 * 1024 - 100)
        assert value(connection, f"select length('{text}') + length('{text}')") == 2 * len(text)


def large_parameter():
    with connect() as connection:
        text = "x" * (256 * 1024 * 1024)
        assert value(connection, "select length(%s::text)", text) == len(text)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    print("passed")
