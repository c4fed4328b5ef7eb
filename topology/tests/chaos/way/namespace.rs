//! A network namespace of this process: with a loopback of its own, and nothing else until it is joined to the machine's.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

const PREFIX: &str = "neonhub-";

pub struct Namespace {
    name: String,
}

impl Namespace {
    /// # Errors
    /// This needs root, and iproute2.
    pub fn create() -> Result<Self, String> {
        sweep();
        let name = format!("{PREFIX}{}", std::process::id());
        run("ip", &["netns", "add", &name])?;
        // From here on it is removed again, whatever fails.
        let namespace = Self { name };
        run("ip", &["-n", namespace.name(), "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of the ends of what joins it to the machine: there, and in here.
    pub fn ends(&self) -> [String; 2] {
        ["a", "b"].map(|end| format!("nh{}{end}", std::process::id()))
    }

    /// Of a range for tests among machines (RFC 2544), which no network uses: a pair for each process.
    pub fn outer_address(&self) -> Ipv4Addr {
        let pair = std::process::id() % (1 << 16);
        Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + pair * 2)
    }

    pub fn inner_address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.outer_address().to_bits() + 1)
    }

    /// Gives both ends their addresses, once they are where they belong.
    pub fn bring_up(&self) -> Result<(), String> {
        let [outer, inner] = self.ends();
        let (here, there) = (self.outer_address().to_string(), self.inner_address().to_string());
        run("ip", &["addr", "add", &here, "peer", &there, "dev", &outer])?;
        run("ip", &["link", "set", &outer, "up"])?;
        run("ip", &["-n", self.name(), "addr", "add", &there, "peer", &here, "dev", &inner])?;
        run("ip", &["-n", self.name(), "link", "set", &inner, "up"])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The outer end first: the namespace lives on as long as a process in it dies.
        let _ = run("ip", &["link", "delete", &self.ends()[0]]);
        if let Err(error) = run("ip", &["netns", "delete", &self.name]) {
            eprintln!("a network namespace is left behind: {error}");
        }
    }
}

/// Removes those of processes that are gone.
fn sweep() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_gone = name.strip_prefix(PREFIX).and_then(|process| process.parse::<u32>().ok());
        if is_gone.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            let _ = run("ip", &["netns", "delete", &name]);
        }
    }
}

pub fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("it failed");
    Err(format!("{program} {}: {said}", arguments.join(" ")))
}
