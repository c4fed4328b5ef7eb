//! One Apache Cassandra node on loopback. It speaks ScyllaDB's protocol and stands in for it.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use super::scratch::{ReservedPort, ScratchFolder};
use super::server_process::ServerProcess;
use super::{jar_folder, write_file};

/// As in `deploy/fetch-real-stack.sh`.
const JAR_FOLDER: &str = "cassandra-5.0.8";

/// It takes about 11 s alone on two cores; compilers and other tests may run beside.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A node with its own data. Ends, and its data with it, when dropped.
pub struct Cassandra {
    // In the order in which they must go: the process before its folder.
    process: Option<ServerProcess>,
    native_port: ReservedPort,
    jars: PathBuf,
    scratch: ScratchFolder,
    _storage_port: ReservedPort,
}

impl Cassandra {
    /// Returns when the node serves clients; an error says what to do, or ends with the node's log.
    pub fn start() -> Result<Self, String> {
        let jars = jar_folder(JAR_FOLDER)?;
        let scratch = ScratchFolder::create("cassandra")?;
        let (native_port, storage_port) = (ReservedPort::reserve()?, ReservedPort::reserve()?);
        let settings = settings(native_port.number(), storage_port.number());
        write_file(&scratch.path().join("cassandra.yaml"), &settings)?;
        write_file(&scratch.path().join("logback.xml"), LOGGING)?;
        let mut cassandra = Self { process: None, native_port, jars, scratch, _storage_port: storage_port };
        cassandra.restart()?;
        Ok(cassandra)
    }

    /// `host:port` for a client's list of known nodes; stays the same over restarts.
    pub fn address(&self) -> String {
        self.socket_address().to_string()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the node again on the same port and data. One that still runs is killed first.
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        let log = self.scratch.path().join("server.log");
        let mut process = ServerProcess::start("cassandra", &log, &self.command())?;
        let address = self.socket_address();
        process.wait_until_ready(START_LIMIT, || answers(address).unwrap_or(false))?;
        self.process = Some(process);
        Ok(())
    }

    fn socket_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.native_port.number()).into()
    }

    fn command(&self) -> Vec<OsString> {
        let folder = self.scratch.path();
        let mut command: Vec<OsString> = vec!["java".into()];
        // Quick to start rather than quick in the long run, and small.
        command.extend(
            ["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Xss256k"].map(Into::into),
        );
        for package in EXPORTED_TO_CASSANDRA {
            command.extend(["--add-exports".into(), format!("{package}=ALL-UNNAMED").into()]);
        }
        for package in OPENED_TO_CASSANDRA {
            command.extend(["--add-opens".into(), format!("{package}=ALL-UNNAMED").into()]);
        }
        command.extend(ONE_NODE_PROPERTIES.map(Into::into));
        command.push(format!("-Dcassandra.config=file://{}", folder.join("cassandra.yaml").display()).into());
        command.push(format!("-Dcassandra.storagedir={}", folder.join("data").display()).into());
        command.push(format!("-Dlogback.configurationFile={}", folder.join("logback.xml").display()).into());
        command.push(format!("-Djava.io.tmpdir={}", folder.join("tmp").display()).into());
        command.push("-cp".into());
        command.push(self.jars.join("*").into_os_string());
        command.push("org.apache.cassandra.service.CassandraDaemon".into());
        command
    }
}

fn settings(native_port: u16, storage_port: u16) -> String {
    format!(
        "\
cluster_name: neonhub
num_tokens: 1
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
commitlog_sync: periodic
commitlog_sync_period: 10000ms
endpoint_snitch: SimpleSnitch
listen_address: 127.0.0.1
rpc_address: 127.0.0.1
native_transport_port: {native_port}
storage_port: {storage_port}
start_native_transport: true
# A dropped or truncated table is gone at once, without a snapshot first.
auto_snapshot: false
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters:
      - seeds: \"127.0.0.1:{storage_port}\"
"
    )
}

/// Without a file of its own, logback prints every debug line of the server.
const LOGGING: &str = r#"<configuration>
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{ISO8601} %-5level %logger{0} - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="STDOUT"/></root>
</configuration>
"#;

/// One node has nobody to wait for.
const ONE_NODE_PROPERTIES: [&str; 4] = [
    "-Dcassandra-foreground=yes",
    "-Dcassandra.superuser_setup_delay_ms=0",
    "-Dcassandra.skip_wait_for_gossip_to_settle=0",
    "-Dcassandra.ring_delay_ms=100",
];

/// What Cassandra's own start script exports on Java 17.
const EXPORTED_TO_CASSANDRA: [&str; 9] = [
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.base/java.lang.ref",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
];

/// What Cassandra's own start script opens on Java 17.
const OPENED_TO_CASSANDRA: [&str; 15] = [
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "java.base/jdk.internal.util.jar",
    "java.base/sun.nio.ch",
    "jdk.management/com.sun.management.internal",
];

/// Whether the node answers a client's first question.
fn answers(address: SocketAddr) -> std::io::Result<bool> {
    // CQL protocol 4: OPTIONS (5), no flags, stream 0, empty body; the answer is SUPPORTED (6).
    const OPTIONS: [u8; 9] = [4, 0, 0, 0, 5, 0, 0, 0, 0];
    const SUPPORTED: u8 = 6;
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    connection.write_all(&OPTIONS)?;
    let mut answer_header = [0; 9];
    connection.read_exact(&mut answer_header)?;
    Ok(answer_header[4] == SUPPORTED)
}
