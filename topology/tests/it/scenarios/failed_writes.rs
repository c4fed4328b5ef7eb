//! The embedded ClickHouse cannot write: what it has acknowledged stays, and it acknowledges nothing that is not written.
//! A limit to the size of files stands in for a full disk: it needs no disk of its own.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::client::Client;
use crate::real_stack::scratch::{ReservedPort, ScratchFolder};
use crate::real_stack::server_process::ServerProcess;
use crate::stack::CLICKHOUSE_PASSWORD;

const LIMIT: Duration = Duration::from_secs(60);
/// `EX_IOERR`.
const EXIT_CODE: i32 = 74;
/// Without the signal, a write beyond the limit fails with EFBIG. 2,048 blocks are 1 or 2 MiB, by the shell.
const WITH_SMALL_FILES: &str = "trap '' XFSZ; ulimit -f 2048; exec \"$@\"";
/// No line of the log can be written either.
const WITHOUT_A_LOG: &str = "exec \"$@\" 2>/dev/full";

pub fn run() {
    let scratch = ScratchFolder::create("writes").unwrap();
    let port = ReservedPort::reserve().unwrap();
    let client = Client::new(port.number(), port.number(), port.number());

    let mut limited = start(scratch.path(), &port, &["sh", "-c", WITH_SMALL_FILES, "sh"]);
    let migrate =
        Command::new(env!("CARGO_BIN_EXE_neonhub")).arg("migrate").envs(settings(scratch.path(), &port)).output();
    assert!(migrate.as_ref().is_ok_and(|output| output.status.success()), "{migrate:?}");
    client.write_sql("CREATE TABLE facts (id UInt64, text String) ENGINE = MergeTree ORDER BY id");
    client.write_sql("INSERT INTO facts SELECT number, 'small' FROM numbers(100)");
    // Random text cannot be packed.
    let large = "INSERT INTO facts SELECT number, randomString(1000) FROM numbers(10000)";
    let outcome = client.try_write_sql(large);
    assert!(outcome.is_err(), "an INSERT that could not be written was acknowledged: {outcome:?}");
    let ended = limited.wait_until_ended(LIMIT).unwrap();
    assert_eq!(ended.code(), Some(EXIT_CODE), "{}", log(scratch.path()));
    assert!(log(scratch.path()).contains("the OLAP engine cannot write"), "{}", log(scratch.path()));

    let roomy = start(scratch.path(), &port, &[]);
    assert_eq!(client.sql("SELECT count() FROM facts").trim(), "100");
    assert_eq!(client.sql("SELECT count() FROM system.detached_parts").trim(), "0");
    client.write_sql(large);
    assert_eq!(client.sql("SELECT count() FROM facts").trim(), "10100");
    drop(roomy);

    // The log may be on the same disk: it ends as it should without a word.
    let mut silent =
        start(scratch.path(), &port, &["sh", "-c", WITHOUT_A_LOG, "sh", "sh", "-c", WITH_SMALL_FILES, "sh"]);
    assert!(client.try_write_sql(large).is_err());
    assert_eq!(silent.wait_until_ended(LIMIT).unwrap().code(), Some(EXIT_CODE));
}

fn start(folder: &Path, port: &ReservedPort, before: &[&str]) -> ServerProcess {
    let mut command: Vec<OsString> = vec!["env".into()];
    command.extend(settings(folder, port).iter().map(|(name, value)| format!("{name}={value}").into()));
    command.extend(before.iter().map(OsString::from));
    command.extend([env!("CARGO_BIN_EXE_neonhub"), "run", "olap"].map(OsString::from));
    let mut process = ServerProcess::start("the OLAP front", &folder.join("log"), &command).unwrap();
    let ping = format!("http://127.0.0.1:{}/ping", port.number());
    process.wait_until_ready(LIMIT, || Client::answers(&ping)).unwrap();
    process
}

fn settings(folder: &Path, port: &ReservedPort) -> [(&'static str, String); 3] {
    [
        ("NEONHUB_DATA_DIR", folder.join("data").display().to_string()),
        ("NEONHUB_CLICKHOUSE_PASSWORD", CLICKHOUSE_PASSWORD.to_owned()),
        ("NEONHUB_CLICKHOUSE_ADDR", format!("127.0.0.1:{}", port.number())),
    ]
}

fn log(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("log")).unwrap_or_default()
}
