//! Real servers for the tests: Apache Kafka, and Apache Cassandra in ScyllaDB's place, from the jars that
//! `deploy/fetch-real-stack.sh` puts into the cache folder.
//!
//! | module | does |
//! |---|---|
//! | `kafka` | one broker: start, stop, kill -9, restart on the same port and data |
//! | `cassandra` | one node, the same |
//! | `redis` | one Redis, Debian's |
//! | `server_process` | a server's process that cannot outlive the test process |
//! | `scratch` | a temporary folder and ports that parallel test processes do not take from each other |
//!
//! [`shared_kafka`] and [`shared_cassandra`] start at first use and serve the whole test process; a test that breaks its
//! server starts one of its own.

mod cassandra;
pub mod kafka;
#[allow(dead_code, reason = "not used by tests/chaos")]
pub mod redis;
pub mod scratch;
pub mod server_process;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub use cassandra::Cassandra;
pub use kafka::Kafka;

/// The broker of this test process. Panics, in every test alike, when it does not start.
pub fn shared_kafka() -> &'static Kafka {
    static KAFKA: OnceLock<Result<Kafka, String>> = OnceLock::new();
    started(KAFKA.get_or_init(Kafka::start))
}

/// The Cassandra node of this test process. Panics, in every test alike, when it does not start.
pub fn shared_cassandra() -> &'static Cassandra {
    static CASSANDRA: OnceLock<Result<Cassandra, String>> = OnceLock::new();
    started(CASSANDRA.get_or_init(Cassandra::start))
}

/// Shows the error as text; `unwrap` would put the lines of a server's log into one. (`cfg(test)` always holds here; by it
/// clippy knows that this may panic.)
#[cfg(test)]
fn started<Server>(outcome: &'static Result<Server, String>) -> &'static Server {
    match outcome {
        Ok(server) => server,
        Err(error) => panic!("{error}"),
    }
}

/// Asks `condition` until it says `true`, and returns how long that took. Ends early with the condition's own error,
/// and with one that names `what` when `limit` is over.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool, String>,
) -> Result<Duration, String> {
    const PAUSE_BETWEEN_QUESTIONS: Duration = Duration::from_millis(20);
    let started = Instant::now();
    loop {
        if condition()? {
            return Ok(started.elapsed());
        }
        if started.elapsed() >= limit {
            return Err(format!("waited {limit:?} in vain: {what}"));
        }
        // Conditions are about other processes, which wake nobody here.
        std::thread::sleep(PAUSE_BETWEEN_QUESTIONS);
    }
}

/// The folder with a server's jars, e.g. `kafka-4.3.1`.
fn jar_folder(folder_name: &str) -> Result<PathBuf, String> {
    let folder = cache_folder()?.join(folder_name);
    // The mark that the script writes last: without it the folder is not whole.
    if !folder.join("pom.sha256").is_file() {
        return Err(format!(
            "{} is not there: run `make real-stack` (deploy/fetch-real-stack.sh) once; it fetches the jars from Maven Central",
            folder.display()
        ));
    }
    Ok(folder.join("lib"))
}

/// The same rule as in the `deploy/fetch-*.sh` scripts.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests are the shell here: they find what the set-up scripts fetched"
)]
pub fn cache_folder() -> Result<PathBuf, String> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("NEONHUB_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("neonhub")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/neonhub")))
        .ok_or_else(|| "neither NEONHUB_CACHE_DIR nor HOME is set: no cache folder to find the servers in".to_owned())
}

fn write_file(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
