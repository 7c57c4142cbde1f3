import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Array;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

/** What applications do with the JDBC driver: each method is a line of a table in docs/clients.md. */
public final class Jdbc {
    private static final String URL = System.getenv("JDBC_URL");

    private interface Act {
        void run() throws Exception;
    }

    private static Connection connect(String... more) throws SQLException {
        Properties properties = new Properties();
        for (int at = 0; at < more.length; at += 2) {
            properties.setProperty(more[at], more[at + 1]);
        }
        return DriverManager.getConnection(URL, properties);
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    private static int number(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getInt(1);
        }
    }

    private static void fails(String state, Act act) throws Exception {
        try {
            act.run();
        } catch (SQLException error) {
            check(state.equals(error.getSQLState()), error.getSQLState() + " and not " + state + ": " + error.getMessage());
            return;
        }
        throw new AssertionError("no " + state);
    }

    static void prepared() throws Exception {
        for (String mode : new String[] {"extended", "extendedForPrepared", "extendedCacheEverything"}) {
            try (Connection connection = connect("preferQueryMode", mode, "binaryTransfer", "true", "prepareThreshold", "2");
                    PreparedStatement statement = connection.prepareStatement("select ?::int * 2, ?::text, ?::timestamptz, ?::bytea")) {
                for (int round = 0; round < 10; round++) {
                    statement.setInt(1, round);
                    statement.setString(2, "round " + round);
                    statement.setTimestamp(3, new java.sql.Timestamp(1000L * round));
                    statement.setBytes(4, new byte[] {0, (byte) round});
                    try (ResultSet rows = statement.executeQuery()) {
                        rows.next();
                        check(rows.getInt(1) == round * 2 && rows.getString(2).equals("round " + round), mode);
                        check(rows.getTimestamp(3).getTime() == 1000L * round && rows.getBytes(4)[1] == round, mode);
                    }
                }
            }
        }
        try (Connection connection = connect("preferQueryMode", "simple");
                PreparedStatement statement = connection.prepareStatement("select ? || ' is simple'")) {
            statement.setString(1, "it's");
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                check(rows.getString(1).equals("it's is simple"), "the simple protocol");
            }
        }
    }

    static void batches() throws Exception {
        for (String rewrite : new String[] {"false", "true"}) {
            try (Connection connection = connect("reWriteBatchedInserts", rewrite); Statement plain = connection.createStatement()) {
                plain.execute("create temporary table parts (id int primary key, name text)");
                try (PreparedStatement insert = connection.prepareStatement("insert into parts values (?, ?)")) {
                    for (int id = 0; id < 5000; id++) {
                        insert.setInt(1, id);
                        insert.setString(2, "part " + id);
                        insert.addBatch();
                    }
                    check(insert.executeBatch().length == 5000, "a result for each");
                    insert.setInt(1, 1);
                    insert.setString(2, "again");
                    insert.addBatch();
                    try {
                        insert.executeBatch();
                        throw new AssertionError("a row twice");
                    } catch (BatchUpdateException error) {
                        check("23505".equals(error.getSQLState()), error.getMessage());
                    }
                }
                check(number(connection, "select count(*) from parts") == 5000, "all rows");
            }
        }
    }

    static void copies() throws Exception {
        try (Connection connection = connect(); Statement plain = connection.createStatement()) {
            plain.execute("create temporary table parts (id int, name text)");
            StringBuilder lines = new StringBuilder();
            for (int id = 0; id < 20000; id++) {
                lines.append(id).append("\tpart ").append(id).append('\n');
            }
            var copies = connection.unwrap(PGConnection.class).getCopyAPI();
            check(copies.copyIn("copy parts from stdin", new StringReader(lines.toString())) == 20000, "rows in");
            StringWriter out = new StringWriter();
            copies.copyOut("copy parts to stdout", out);
            check(out.toString().contentEquals(lines), "rows out");
            fails("22P02", () -> copies.copyIn("copy parts from stdin", new StringReader("no number\tx\n")));
            check(number(connection, "select count(*) from parts") == 20000, "as before");
        }
    }

    static void timeouts() throws Exception {
        try (Connection connection = connect(); Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            fails("57014", () -> statement.execute("select pg_sleep(60)"));
            check(number(connection, "select 7") == 7, "the session goes on");
        }
    }

    static void portions() throws Exception {
        try (Connection connection = connect()) {
            connection.setAutoCommit(false);
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(50);
                long sum = 0;
                try (ResultSet rows = statement.executeQuery("select n from generate_series(1, 5000) n")) {
                    while (rows.next()) {
                        sum += rows.getInt(1);
                    }
                }
                check(sum == 12502500, "every row");
            }
            connection.commit();
        }
    }

    static void transactions() throws Exception {
        try (Connection connection = connect()) {
            connection.setAutoCommit(false);
            connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            try (Statement statement = connection.createStatement()) {
                statement.execute("create temporary table parts (id int primary key) on commit preserve rows");
                var before = connection.setSavepoint("before");
                statement.execute("insert into parts values (1)");
                fails("23505", () -> statement.execute("insert into parts values (1)"));
                fails("25P02", () -> statement.execute("select 1"));
                connection.rollback(before);
                statement.execute("insert into parts values (2)");
                connection.commit();
                check(number(connection, "select sum(id) from parts") == 2, "one row");
            }
        }
    }

    static void notifications() throws Exception {
        try (Connection hears = connect(); Connection tells = connect(); Statement listen = hears.createStatement()) {
            listen.execute("listen lanterns_of_java");
            tells.createStatement().execute("notify lanterns_of_java, 'lit'");
            PGNotification[] heard = hears.unwrap(PGConnection.class).getNotifications(20000);
            check(heard != null && heard.length == 1 && heard[0].getParameter().equals("lit"), "a notification");
        }
    }

    static void large_objects() throws Exception {
        try (Connection connection = connect()) {
            connection.setAutoCommit(false);
            var objects = connection.unwrap(PGConnection.class).getLargeObjectAPI();
            byte[] content = new byte[1_000_000];
            new java.util.Random(7).nextBytes(content);
            long oid = objects.createLO();
            try (var object = objects.open(oid)) {
                object.write(content);
                object.seek(0);
                check(java.util.Arrays.equals(object.read(content.length), content), "what was written");
            }
            connection.commit();
            fails("42704", () -> objects.open(1L).close());
            connection.rollback();
            objects.unlink(oid);
            connection.commit();
            check(number(connection, "select 7") == 7, "the session goes on");
        }
    }

    static void types() throws Exception {
        try (Connection connection = connect("currentSchema", "pg_temp,public", "ApplicationName", "the shop", "readOnly", "false");
                PreparedStatement statement = connection.prepareStatement("select ?::int[], current_setting('application_name'), ?::uuid")) {
            Array numbers = connection.createArrayOf("int4", new Object[] {1, 2, 3});
            statement.setArray(1, numbers);
            var id = java.util.UUID.randomUUID();
            statement.setObject(2, id);
            try (ResultSet rows = statement.executeQuery()) {
                rows.next();
                check(((Integer[]) rows.getArray(1).getArray()).length == 3 && rows.getString(2).equals("the shop"), "array and name");
                check(rows.getObject(3).equals(id), "uuid");
            }
            check(connection.getMetaData().getTables(null, "pg_catalog", "pg_class", null).next(), "metadata");
            try (Statement warned = connection.createStatement()) {
                warned.execute("do $$ begin raise warning 'mind the rope'; end $$");
                check(warned.getWarnings().getMessage().equals("mind the rope"), "a warning");
            }
        }
    }

    static void pem() throws Exception {
        // The key of psql, which the driver reads as PKCS#8 in DER only.
        String url = URL.replaceFirst("sslkey=[^&]*", "sslkey=" + System.getenv("JDBC_PEM_KEY"));
        try (Connection connection = DriverManager.getConnection(url)) {
            throw new AssertionError("the driver reads PEM now: " + number(connection, "select 1"));
        } catch (SQLException error) {
            check(error.getMessage().contains("key"), error.getMessage());
        }
    }

    public static void main(String[] arguments) throws Exception {
        Jdbc.class.getDeclaredMethod(arguments[0]).invoke(null);
        System.out.println("passed");
    }
}
