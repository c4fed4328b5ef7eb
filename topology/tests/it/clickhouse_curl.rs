//! Plain curl on ClickHouse's HTTP: what a script or a cron job does.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::client::LIMIT;
use crate::real_stack::wait_until;

const TABLE: &str = "neonhub.curl_check";

/// `url` has a user who may write and its password.
pub fn check(curl: &Path, url: &str) {
    let curl = Curl { program: curl, url };
    assert_eq!(curl.post("", &[], "SELECT 1"), "1\n");
    let parameters = ["--get", "--data-urlencode", "query=SELECT {n:UInt8} + 1", "--data-urlencode", "param_n=41"];
    assert_eq!(curl.ask("", &parameters), "42\n");
    assert_eq!(curl.post("default_format=JSONEachRow", &[], "SELECT 'x' AS name"), "{\"name\":\"x\"}\n");
    assert_eq!(curl.post("max_block_size=7", &[], "SELECT getSetting('max_block_size')"), "7\n");

    curl.post("", &[], &format!("CREATE TABLE {TABLE} (id UInt32, name String) ENGINE = MergeTree ORDER BY id"));
    curl.post(&format!("query=INSERT%20INTO%20{TABLE}%20FORMAT%20CSV"), &[], "1,one\n2,\"t,wo\"\n");
    let in_gzip = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let packed = fed(in_gzip.unwrap(), b"3,three\n");
    let insert = format!("query=INSERT%20INTO%20{TABLE}%20FORMAT%20CSV");
    curl.send(&insert, &["--header", "Content-Encoding: gzip"], &packed);
    let sum = curl.post("", &[], &format!("SELECT sum(id), arraySort(groupArray(name)) FROM {TABLE}"));
    assert_eq!(sum, "6\t['one','t,wo','three']\n");
    let packed = curl.post("enable_http_compression=1", &["--compressed"], "SELECT repeat('x', 100000)");
    assert_eq!(packed.trim_end().len(), 100_000);

    let session = "session_id=curl-check&session_timeout=60";
    curl.post(session, &[], "CREATE TEMPORARY TABLE kept (n UInt8)");
    curl.post(session, &[], "INSERT INTO kept VALUES (1), (2)");
    assert_eq!(curl.post(session, &[], "SELECT sum(n) FROM kept"), "3\n");

    let failed = curl.post("", &["--include"], "SELECT * FROM neonhub.no_such_table");
    assert!(failed.starts_with("HTTP/1.1 404") && failed.contains("x-clickhouse-exception-code: 60"), "{failed}");
    assert!(failed.contains("Code: 60") && failed.contains("UNKNOWN_TABLE"), "{failed}");

    // Who hangs up ends what was running.
    let endless = "SELECT count() FROM numbers(1000000000000) WHERE cityHash64(number) = 1 -- curl hangs up";
    let timed_out = curl.command("", &["--max-time", "1", "--data-binary", endless]).output().unwrap();
    assert_eq!(timed_out.status.code(), Some(28), "{timed_out:?}");
    let running =
        "SELECT count() FROM system.processes WHERE query LIKE '%curl hangs up%' AND query NOT LIKE '%processes%'";
    wait_until("the statement is stopped", LIMIT, || Ok(curl.post("", &[], running) == "0\n")).unwrap();
    curl.post("", &[], &format!("DROP TABLE {TABLE}"));
}

struct Curl<'a> {
    program: &'a Path,
    url: &'a str,
}

impl Curl<'_> {
    fn command(&self, query: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(["--silent", "--show-error", &format!("{}/?{query}", self.url)]).args(arguments);
        command
    }

    fn ask(&self, query: &str, arguments: &[&str]) -> String {
        let output = self.command(query, arguments).output().unwrap();
        assert!(output.status.success(), "{query}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn post(&self, query: &str, arguments: &[&str], body: &str) -> String {
        self.send(query, arguments, body.as_bytes())
    }

    fn send(&self, query: &str, arguments: &[&str], body: &[u8]) -> String {
        let arguments = [&["--data-binary", "@-"], arguments].concat();
        let started = self.command(query, &arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        String::from_utf8(fed(started.unwrap(), body)).unwrap()
    }
}

/// What a program makes of its input.
fn fed(mut started: std::process::Child, input: &[u8]) -> Vec<u8> {
    started.stdin.take().unwrap().write_all(input).unwrap();
    let output = started.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}
