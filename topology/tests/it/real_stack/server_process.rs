//! A server's process that cannot outlive the test process, however that ends.
//!
//! The parent-death signal of Linux is of no use here: it fires when the *thread* that started the child ends, and libtest
//! runs every test on a thread of its own. Instead the server runs under a small shell that reads orders from a pipe. The
//! only writing end is ours, so the pipe's end means that we are gone, and then the shell kills the server. It has a process
//! group of its own, so Ctrl-C on the terminal reaches it in no other way.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::wait_until;

/// The shell ends only after the server has been reaped: whoever waited for the shell may use port and data again.
const SHELL: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
(
    while read -r order <&3; do
        case "$order" in
            stop) kill -TERM "$server" ;;
            freeze) kill -STOP "$server" ;;
            thaw) kill -CONT "$server" ;;
        esac
    done
    kill -KILL "$server"
) 2>/dev/null &
watcher=$!
wait "$server"
status=$?
kill -KILL "$watcher" 2>/dev/null
exit "$status"
"#;

pub struct ServerProcess {
    name: &'static str,
    /// Holds the writing end of the orders' pipe as its stdin.
    shell: Child,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts `command`; what it prints is appended to the file `log`.
    pub fn start(name: &'static str, log: &Path, command: &[OsString]) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("cannot start {name}: {error}");
        let output = File::options().create(true).append(true).open(log).map_err(failed)?;
        let shell = Command::new("sh")
            .args(["-c", SHELL, name])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        Ok(Self { name, shell, log: log.to_owned() })
    }

    /// Waits until `is_ready` says so; an error as soon as the process ends instead, with the end of its log.
    pub fn wait_until_ready(
        &mut self,
        limit: Duration,
        mut is_ready: impl FnMut() -> bool,
    ) -> Result<Duration, String> {
        let (name, log) = (self.name, self.log.clone());
        wait_until("ready to serve", limit, || match self.exit_status()? {
            Some(status) => Err(format!("it ended with {status}")),
            None => Ok(is_ready()),
        })
        .map_err(|error| format!("{name}: {error}; the end of its log:\n{}", last_lines(&log, 40)))
    }

    /// Waits for the process to end by itself.
    pub fn wait_until_ended(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let name = self.name;
        let mut ended = None;
        wait_until("ended", limit, || {
            ended = self.exit_status()?;
            Ok(ended.is_some())
        })
        .map_err(|error| format!("{name}: {error}"))?;
        ended.ok_or_else(|| format!("{name}: ended without a status"))
    }

    /// SIGTERM, and SIGKILL when it has not ended within `limit`.
    pub fn stop(mut self, limit: Duration) {
        let _ = self.terminate(limit);
    }

    /// SIGTERM; how it ended, or an error when it has not within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        self.order("stop");
        self.wait_until_ended(limit)
    }

    /// SIGSTOP: it stands still, with its connections open.
    pub fn freeze(&mut self) {
        self.order("freeze");
    }

    /// SIGCONT: it goes on as if nothing had been.
    pub fn thaw(&mut self) {
        self.order("thaw");
    }

    fn order(&mut self, order: &str) {
        if let Some(orders) = &mut self.shell.stdin {
            // The pipe is broken only if the server has ended already.
            let _ = orders.write_all(format!("{order}\n").as_bytes());
        }
    }

    fn exit_status(&mut self) -> Result<Option<ExitStatus>, String> {
        self.shell.try_wait().map_err(|error| format!("cannot ask for the state of {}: {error}", self.name))
    }
}

/// SIGKILL.
impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

fn last_lines(path: &Path, count: usize) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::scratch::ScratchFolder;
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A server that is ready for being told to end, tells its process id and then serves.
    fn start_sleeper(folder: &Path, on_term: &str, serving: &str) -> (ServerProcess, PathBuf) {
        let pid_file = folder.join("pid");
        let script =
            format!("trap '{on_term}' TERM; echo $$ >'{0}.new'; mv '{0}.new' '{0}'; {serving}", pid_file.display());
        let command: Vec<OsString> = ["sh", "-c", &script].map(OsString::from).to_vec();
        let mut process = ServerProcess::start("sleeper", &folder.join("log"), &command).unwrap();
        process.wait_until_ready(LIMIT, || pid_file.exists()).unwrap();
        let pid = std::fs::read_to_string(pid_file).unwrap();
        (process, Path::new("/proc").join(pid.trim()))
    }

    #[test]
    fn a_dropped_server_is_gone_when_drop_returns() {
        let folder = ScratchFolder::create("sleeper").unwrap();
        let (process, server) = start_sleeper(folder.path(), "", "exec sleep 600");
        assert!(server.exists());
        drop(process);
        assert!(!server.exists());
    }

    #[test]
    fn stop_lets_the_server_end_in_its_own_way() {
        let folder = ScratchFolder::create("sleeper").unwrap();
        let (process, _) = start_sleeper(folder.path(), "echo tidied up; exit 0", "while :; do sleep 0.01; done");
        process.stop(LIMIT);
        assert_eq!(last_lines(&folder.path().join("log"), 1), "tidied up");
    }

    #[test]
    fn stop_kills_a_server_that_does_not_listen() {
        let folder = ScratchFolder::create("sleeper").unwrap();
        let (process, server) = start_sleeper(folder.path(), "", "exec sleep 600");
        process.stop(Duration::from_millis(100));
        assert!(!server.exists());
    }

    #[test]
    fn a_frozen_server_stands_still_until_it_is_thawed() {
        let folder = ScratchFolder::create("sleeper").unwrap();
        let (mut process, server) = start_sleeper(folder.path(), "exit", "while :; do sleep 0.01; done");
        let is_stopped = || std::fs::read_to_string(server.join("stat")).unwrap().contains(") T ");
        process.freeze();
        wait_until("stopped", LIMIT, || Ok(is_stopped())).unwrap();
        process.thaw();
        wait_until("goes on", LIMIT, || Ok(!is_stopped())).unwrap();
        process.freeze();
        drop(process);
        assert!(!server.exists(), "a frozen server can be killed");
    }

    #[test]
    fn a_server_that_fails_ends_the_wait_at_once_and_its_log_is_told() {
        let folder = ScratchFolder::create("sleeper").unwrap();
        let command: Vec<OsString> = ["sh", "-c", "echo no such setting; exit 3"].map(OsString::from).to_vec();
        let mut process = ServerProcess::start("sleeper", &folder.path().join("log"), &command).unwrap();
        let started = Instant::now();
        let error = process.wait_until_ready(LIMIT, || false).unwrap_err();
        assert!(started.elapsed() < LIMIT);
        assert!(error.contains("no such setting"), "{error}");
    }
}
