//! The embedded ClickHouse knows two users: whoever comes reads the tables and nothing else; the writer, which has a password,
//! may do everything.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use neonhub_schemas::migrations::{ClickHouseTarget, reading_user};
use socket2::{Domain, Socket, Type};

use crate::client::{Client, LIMIT};
use crate::real_stack::wait_until;
use crate::stack::{Backbone, CLICKHOUSE_PASSWORD, CLICKHOUSE_WRITER, Stack};

/// Codes of ClickHouse: READONLY, ACCESS_DENIED.
const REFUSALS: [&str; 2] = ["Code: 164.", "Code: 497."];
/// Of `NEONHUB_OLAP_CONNECTIONS`, one of which is kept for whoever writes.
const READERS: usize = 3;

pub fn run() {
    let stack = Stack::start(Backbone::Embedded);
    let client = stack.client();
    migrating_twice_and_by_two_at_once_changes_nothing(&stack, &client);
    a_server_is_told_of_the_reading_user(&stack, &client);
    client.write_sql("CREATE TABLE facts (id UInt64, path String) ENGINE = MergeTree ORDER BY id");
    client.write_sql("INSERT INTO facts SELECT number, 'file(x)' FROM numbers(3)");
    assert_eq!(client.sql("SELECT count(), any(path), max(number) FROM facts, numbers(2) AS n"), "6\tfile(x)\t1");

    for sql in [
        "INSERT INTO facts VALUES (9, '')",
        "INSERT INTO facts SELECT 9, ''",
        "CREATE TABLE more (id UInt8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE more (id UInt8) ENGINE = Memory",
        "ALTER TABLE facts DELETE WHERE 1",
        "TRUNCATE TABLE facts",
        "DROP TABLE facts",
        "OPTIMIZE TABLE facts FINAL",
        "KILL QUERY WHERE 1",
        "SYSTEM FLUSH LOGS",
        "ATTACH TABLE more FROM '/tmp' (a Int8) ENGINE = MergeTree ORDER BY a",
        "SELECT file('/etc/hostname')",
        "SELECT `\\x66ile`('/etc/hostname')",
        "SELECT * FROM view(SELECT file('/etc/hostname'))",
        "SELECT arrayMap(file, ['/etc/hostname'])",
        "SELECT * APPLY file FROM (SELECT '/etc/hostname')",
        "SELECT 1 AS a$x$, file('/etc/hostname')",
        "SELECT 1 // '\n, file('/etc/hostname')",
        "SELECT 1 AS “a'”, file('/etc/hostname') AS “b'”",
        "SELECT 1 AS a$x$ INTO OUTFILE '/tmp/neonhub-outfile'",
        "SELECT 1 INTO\u{a0}OUTFILE '/tmp/neonhub-outfile'",
        "SELECT sleepEachRow(1) FROM numbers(20)",
        "SET additional_result_filter = 'file(1)'",
        "SET allow_introspection_functions = 1",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 SETTINGS max_memory_usage = 0",
        "SET readonly = 0",
        "SET format_template_resultset = '/etc/hostname'",
    ] {
        assert_refused(&client, "", sql);
    }
    // The database `default` shows files as tables.
    for sql in ["SELECT * FROM `/etc/hostname`", "SELECT * FROM '/etc/hostname'"] {
        assert_refused(&client, "database=default", sql);
    }
    // What the engine has besides is not known beforehand: each of its table functions, in each kind of statement.
    let functions = client.sql(
        "SELECT name FROM system.table_functions WHERE name NOT IN ('format', 'null', 'merge', \
         'values', 'view', 'viewExplain', 'viewIfPermitted', 'primes', 'loop') AND NOT startsWith(name, 'generate') \
         AND NOT startsWith(name, 'numbers') AND NOT startsWith(name, 'zeros') AND NOT startsWith(name, 'SQL') \
         AND name NOT IN ('fuzzJSON', 'mergeTreeIndex')",
    );
    assert!(functions.lines().any(|name| name == "url") && functions.lines().count() > 40, "{functions}");
    for function in functions.lines() {
        for statement in ["SELECT * FROM", "DESCRIBE TABLE", "EXPLAIN SELECT * FROM"] {
            assert_refused(&client, "", &format!("{statement} {function}('http://127.0.0.1:1/x', CSV, 'a String')"));
        }
    }
    for sql in [
        "USE system PARALLEL WITH CREATE DATABASE pwned",
        "SET max_threads = 1, param_y$x$ = 2; CREATE DATABASE pwned",
        "SET log_comment = ‘a'’; CREATE DATABASE pwned",
    ] {
        assert_ne!(ask(&client, "", sql).0, 200, "{sql}");
    }
    assert_eq!(client.sql("SELECT count() FROM system.databases WHERE name = 'pwned'"), "0");
    let drive_by = [("origin", "https://evil.example"), ("content-type", "text/plain")];
    let answer = client.send(client.clickhouse_port, "POST", "/", &drive_by, b"SELECT 1");
    assert!(answer.status != 200 && answer.body.contains("Code: 497."), "{}", answer.body);
    for settings in [
        "additional_result_filter=toUInt8(file('/etc/hostname'))",
        "format_template_resultset=/etc/hostname",
        "format_schema=/etc/hostname:M",
        "s3_url=x",
    ] {
        assert_refused(&client, settings, "SELECT 1 FORMAT Template");
    }
    assert_eq!(client.sql("SELECT count() FROM facts"), "3", "nothing was written");

    a_session_keeps_what_a_reader_sets(&client);
    limits_hold(&client);
    results_that_nobody_reads_are_few(&client);
    only_the_password_opens_the_writer(&client);
}

fn migrating_twice_and_by_two_at_once_changes_nothing(stack: &Stack, client: &Client) {
    let database = [("NEONHUB_CLICKHOUSE_DATABASE", "another")];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (text, success) = stack.try_command_with(&["migrate"], &database);
                assert!(success, "{text}");
            });
        }
    });
    let (text, success) = stack.try_command_with(&["migrate"], &database);
    assert!(success && text.contains("0 migrations applied"), "{text}");
    assert_eq!(client.sql("SELECT uniqExact(number) = max(number) FROM another.schema_migrations"), "1");
    client.write_sql(
        "ALTER TABLE another.schema_migrations UPDATE hash = 'other' WHERE number = 1 SETTINGS mutations_sync = 1",
    );
    let (text, success) = stack.try_command_with(&["migrate"], &database);
    assert!(!success && text.contains("was changed after it was applied"), "{text}");
}

/// To a server's migration the front looks like a server whose user may not make users. The engine understands each statement:
/// it names what is missing, and that is no word of SQL.
fn a_server_is_told_of_the_reading_user(stack: &Stack, client: &Client) {
    let target = ClickHouseTarget { database: "neonhub", cluster: None };
    let statements = reading_user(&target, "password-of-the-reader", 7);
    let refusals: Vec<String> = statements.iter().map(|sql| client.try_write_sql(sql).unwrap_err()).collect();
    // ACCESS_DENIED for all but the GRANT, which looks for the user first: UNKNOWN_ROLE.
    let codes = ["Code: 497.", "Code: 497.", "Code: 497.", "Code: 497.", "Code: 511."];
    assert_eq!(refusals.len(), codes.len(), "{statements:?}");
    for (refusal, code) in refusals.iter().zip(codes) {
        assert!(refusal.contains(code), "{refusal}");
    }
    let server = format!("http://{CLICKHOUSE_WRITER}:{CLICKHOUSE_PASSWORD}@127.0.0.1:{}", client.clickhouse_port);
    let is_server = ("NEONHUB_CLICKHOUSE_URL", server.as_str());
    let reader = ("NEONHUB_CLICKHOUSE_READER_PASSWORD", "password-of-the-reader");
    let (text, success) = stack.try_command_with(&["migrate"], &[is_server, reader]);
    assert!(!success && text.contains("ACCESS MANAGEMENT") && text.contains("Code: 497."), "{text}");
    assert!(!text.contains("password-of-the-reader"), "{text}");
    let (text, success) = stack.try_command_with(&["migrate"], &[is_server]);
    assert!(success && text.contains("0 migrations applied"), "{text}");
    let (text, success) = stack.try_command_with(&["audit"], &[("NEONHUB_CLICKHOUSE_PASSWORD", "of-another-stack")]);
    assert!(!success && text.contains("NEONHUB_DATA_DIR of the stack"), "{text}");
}

fn ask(client: &Client, parameters: &str, sql: &str) -> (u16, String) {
    let path = format!("/?database=neonhub&{parameters}");
    let answer = client.send(client.clickhouse_port, "POST", &path, &[], sql.as_bytes());
    (answer.status, answer.body.trim_end().to_owned())
}

fn assert_refused(client: &Client, parameters: &str, sql: &str) {
    let (status, body) = ask(client, parameters, sql);
    assert!(status != 200 && REFUSALS.iter().any(|code| body.contains(code)), "{parameters} {sql}: {status} {body}");
}

fn a_session_keeps_what_a_reader_sets(client: &Client) {
    let in_session = |sql: &str| ask(client, "session_id=s", sql);
    assert_eq!(in_session("SET max_threads = 3").0, 200);
    assert_eq!(in_session("USE system").0, 200);
    let seen = ask(client, "session_id=s&session_check=1", "SELECT getSetting('max_threads')").1;
    assert_eq!(seen, "3");
    assert_eq!(in_session("SET max_execution_time = 5").0, 200);
    assert_eq!(in_session("SELECT getSetting('max_execution_time')").1, "5", "less may be asked for");
    assert_eq!(in_session("SELECT currentDatabase()").1, "neonhub", "the request names its own");
    assert_eq!(in_session("SET max_threads = 'many'").0, 400);
    assert_refused(client, "session_id=s", "CREATE TEMPORARY TABLE more (id UInt8) ENGINE = Memory");
    assert_refused(client, "session_id=s", "SET max_threads = 1, readonly = 0");
    assert_refused(client, "session_id=s", "SELECT 1 SETTINGS readonly = 0");
    assert_refused(client, "session_id=s", "INSERT INTO neonhub.facts VALUES (9, '')");
}

fn limits_hold(client: &Client) {
    for parameters in ["", "max_memory_usage=0", "session_id=limits", "max_memory_usage=99999999999999"] {
        let (_, limit) = ask(client, parameters, "SELECT getSetting('max_memory_usage')");
        assert_eq!(limit, (2_u64 << 30).to_string(), "{parameters}");
    }
    assert_eq!(ask(client, "max_memory_usage=1000000", "SELECT getSetting('max_memory_usage')").1, "1000000");
    let (status, body) = ask(client, "", "SELECT number FROM numbers(10000001) FORMAT Null");
    assert!(status != 200 && body.contains("Code: 396."), "{status} {body}");
}

/// Clients that do not read what they asked for have few results in memory, hold up no writer, and make room when they go.
fn results_that_nobody_reads_are_few(client: &Client) {
    const SQL: &str = "SELECT number, repeat('x', 100) FROM numbers(100000) FORMAT JSON";
    let mut deaf: Vec<TcpStream> = (0..12)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4_096).unwrap();
            socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, client.clickhouse_port)).into()).unwrap();
            let mut stream = TcpStream::from(socket);
            let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{SQL}", SQL.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    // Whose result is there has an answer's head to read.
    let answered = |deaf: &[TcpStream]| deaf.iter().filter(|stream| stream.peek(&mut [0]).is_ok()).count();
    wait_until("readers have results", LIMIT, || Ok(answered(&deaf) == READERS)).unwrap();
    // As much work as that of the next ones.
    for _ in 0..2 * READERS {
        assert!(client.write_sql(SQL).len() > 10_000_000);
    }
    assert_eq!(answered(&deaf), READERS, "the others wait until one of them is read or gone");
    deaf.retain(|stream| stream.peek(&mut [0]).is_err());
    wait_until("others have theirs", LIMIT, || Ok(answered(&deaf) == READERS)).unwrap();
    drop(deaf);
    assert_eq!(client.sql("SELECT 1"), "1");
}

fn only_the_password_opens_the_writer(client: &Client) {
    for password in ["", "wrong", &CLICKHOUSE_PASSWORD[1..]] {
        let headers = [("x-clickhouse-user", "neonhub"), ("x-clickhouse-key", password)];
        let answer = client.send(client.clickhouse_port, "POST", "/", &headers, b"SELECT 1");
        assert!(answer.body.contains("Code: 516."), "{}", answer.body);
    }
    client.write_sql("DROP TABLE facts");
}
