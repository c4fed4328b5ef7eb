//! One Apache Kafka broker (KRaft, broker and controller in one process), on loopback or wherever a test puts it.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::scratch::{ReservedPort, ScratchFolder};
use super::server_process::ServerProcess;
use super::{jar_folder, write_file};

/// As in `deploy/fetch-real-stack.sh`.
const JAR_FOLDER: &str = "kafka-4.3.1";

/// 16 bytes in base64url: the broker refuses data of another cluster.
const CLUSTER_ID: &str = "bmVvbmh1Yi10ZXN0LTAwMQ";

/// It takes about 5 s alone on two cores; compilers and other tests may run beside.
const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Where a broker runs, and where it sends its clients.
#[derive(Clone, Debug)]
pub struct Site {
    /// Before its command: what brings it there.
    pub prefix: Vec<OsString>,
    /// Where it listens for clients.
    pub address: Ipv4Addr,
    /// Of a proxy on loopback, where clients are sent in place of the broker's own.
    pub proxy_port: Option<u16>,
}

impl Default for Site {
    /// On loopback, with nothing between.
    fn default() -> Self {
        Self { prefix: Vec::new(), address: Ipv4Addr::LOCALHOST, proxy_port: None }
    }
}

/// A broker with its own data. Ends, and its data with it, when dropped.
pub struct Kafka {
    // In the order in which they must go: the process before its folder.
    process: Option<ServerProcess>,
    client_port: ReservedPort,
    site: Site,
    jars: PathBuf,
    scratch: ScratchFolder,
    _inner_ports: [ReservedPort; 2],
}

impl Kafka {
    /// Returns when the broker serves clients; an error says what to do, or ends with the broker's log.
    pub fn start() -> Result<Self, String> {
        Self::start_at(&Site::default())
    }

    /// The same, somewhere else.
    pub fn start_at(site: &Site) -> Result<Self, String> {
        let jars = jar_folder(JAR_FOLDER)?;
        let scratch = ScratchFolder::create("kafka")?;
        let client_port = ReservedPort::reserve()?;
        let inner_ports = [ReservedPort::reserve()?, ReservedPort::reserve()?];
        let [broker, controller] = [inner_ports[0].number(), inner_ports[1].number()];
        let site = site.clone();
        let mut kafka = Self { process: None, client_port, site, jars, scratch, _inner_ports: inner_ports };
        let listeners =
            Listeners { client: kafka.address(), advertised: kafka.bootstrap_servers(), broker, controller };
        let settings = settings(&listeners, &kafka.scratch.path().join("data"));
        write_file(&kafka.scratch.path().join("server.properties"), &settings)?;
        kafka.format_data_folder()?;
        kafka.restart()?;
        Ok(kafka)
    }

    /// For `bootstrap.servers`; stays the same over restarts.
    pub fn bootstrap_servers(&self) -> String {
        match self.site.proxy_port {
            Some(port) => format!("127.0.0.1:{port}"),
            None => self.address().to_string(),
        }
    }

    /// Where the broker itself listens for clients.
    pub fn client_port(&self) -> u16 {
        self.client_port.number()
    }

    /// Copies the broker's log, for who looks into a failure.
    pub fn keep_log(&self, to: &Path) {
        if let Err(error) = std::fs::copy(self.scratch.path().join("server.log"), to) {
            eprintln!("the broker's log is not kept: {error}");
        }
    }

    /// An orderly shutdown.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop(STOP_LIMIT);
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the broker again on the same port and data. One that still runs is killed first.
    pub fn restart(&mut self) -> Result<(), String> {
        self.kill();
        let mut process = self.java("kafka", &["kafka.Kafka", "server.properties"])?;
        let address = self.address();
        process.wait_until_ready(START_LIMIT, || live_brokers(address).is_ok_and(|count| count > 0))?;
        self.process = Some(process);
        Ok(())
    }

    fn address(&self) -> SocketAddr {
        (self.site.address, self.client_port()).into()
    }

    fn format_data_folder(&self) -> Result<(), String> {
        let arguments =
            ["kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c", "server.properties"];
        let status = self.java("kafka storage tool", &arguments)?.wait_until_ended(START_LIMIT)?;
        if !status.success() {
            let log = std::fs::read_to_string(self.scratch.path().join("server.log")).unwrap_or_default();
            return Err(format!("kafka storage tool ended with {status}:\n{log}"));
        }
        Ok(())
    }

    /// A Java process of Kafka's jars. An argument `server.properties` stands for the file in the scratch folder.
    fn java(&self, name: &'static str, arguments: &[&str]) -> Result<ServerProcess, String> {
        let folder = self.scratch.path();
        let mut command = self.site.prefix.clone();
        command.push("java".into());
        // Quick to start rather than quick in the long run, and small.
        command.extend(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData"].map(Into::into));
        command.push("-Dorg.apache.logging.log4j.level=INFO".into());
        command.push(format!("-Djava.io.tmpdir={}", folder.join("tmp").display()).into());
        command.push("-cp".into());
        command.push(self.jars.join("*").into_os_string());
        command.extend(arguments.iter().map(|argument| match *argument {
            "server.properties" => folder.join(argument).into_os_string(),
            other => other.into(),
        }));
        ServerProcess::start(name, &folder.join("server.log"), &command)
    }
}

struct Listeners {
    client: SocketAddr,
    advertised: String,
    /// On its own loopback, where the broker talks to itself: what befalls its clients' connections does not befall these.
    broker: u16,
    controller: u16,
}

fn settings(listeners: &Listeners, data: &Path) -> String {
    let Listeners { client, advertised, broker, controller } = listeners;
    let data = data.display();
    format!(
        "\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=CLIENTS://{client},BROKERS://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENTS://{advertised},BROKERS://127.0.0.1:{broker}
listener.security.protocol.map=CLIENTS:PLAINTEXT,BROKERS:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=BROKERS
log.dirs={data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
# Tests choose short session timeouts and abandon transactions: notice both soon.
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# After a kill -9 the broker may register again only when its old session is over (9 s by default).
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
# Small: the cleaner's buffer alone is 128 MB by default.
log.cleaner.dedupe.buffer.size=8388608
num.io.threads=4
num.network.threads=2
background.threads=4
"
    )
}

/// The number of brokers in the broker's own metadata, which lists it from the moment at which it serves clients. (It
/// accepts connections long before that.)
fn live_brokers(address: SocketAddr) -> std::io::Result<i32> {
    // Metadata request, version 4: size; api key 3, version 4, correlation id 7, no client id; no topics, create none.
    const REQUEST: [u8; 19] = [0, 0, 0, 15, 0, 3, 0, 4, 0, 0, 0, 7, 0xff, 0xff, 0, 0, 0, 0, 0];
    let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    connection.write_all(&REQUEST)?;
    // Size, correlation id, throttle time, number of brokers.
    let mut answer = [0; 16];
    connection.read_exact(&mut answer)?;
    let [.., a, b, c, d] = answer;
    Ok(i32::from_be_bytes([a, b, c, d]))
}
