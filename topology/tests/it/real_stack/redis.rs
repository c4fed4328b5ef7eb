//! One Redis on loopback that keeps nothing on disk.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use super::scratch::{ReservedPort, ScratchFolder};
use super::server_process::ServerProcess;

pub const PASSWORD: &str = "redis-password-of-the-tests";
const START_LIMIT: Duration = Duration::from_secs(30);

pub struct Redis {
    // In the order in which they must go: the process before its folder.
    process: Option<ServerProcess>,
    port: ReservedPort,
    program: PathBuf,
    scratch: ScratchFolder,
}

impl Redis {
    /// `program` is redis-server. Returns when it serves clients.
    pub fn start(program: PathBuf) -> Result<Self, String> {
        let (port, scratch) = (ReservedPort::reserve()?, ScratchFolder::create("redis")?);
        let mut redis = Self { process: None, port, program, scratch };
        redis.restart()?;
        Ok(redis)
    }

    /// For `NEONHUB_REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}/0", self.port.number())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGSTOP: its port takes connections, and nobody answers.
    pub fn freeze(&mut self) {
        if let Some(process) = &mut self.process {
            process.freeze();
        }
    }

    /// Starts it again, empty, on the same port.
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        let log = self.scratch.path().join("server.log");
        let mut process = ServerProcess::start("redis", &log, &self.command())?;
        let port = self.port.number();
        process.wait_until_ready(START_LIMIT, || answers(port).unwrap_or(false))?;
        self.process = Some(process);
        Ok(())
    }

    fn command(&self) -> Vec<OsString> {
        let port = self.port.number().to_string();
        let arguments =
            ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--requirepass", PASSWORD];
        let mut command = vec![self.program.clone().into_os_string()];
        command.extend(arguments.map(OsString::from));
        command.extend(["--dir".into(), self.scratch.path().as_os_str().to_owned()]);
        command
    }
}

fn answers(port: u16) -> std::io::Result<bool> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(Duration::from_secs(1)))?;
    connection.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    connection.read_exact(&mut answer)?;
    // It serves, and wants the password.
    Ok(answer.starts_with(b"-NOAUTH"))
}
