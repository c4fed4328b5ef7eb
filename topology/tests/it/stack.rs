//! A running NeonHub for one test: real processes of the built binary, killed and started again as the test likes.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::client::Client;
use crate::real_stack::scratch::{ReservedPort, ScratchFolder};
use crate::real_stack::server_process::ServerProcess;
use crate::real_stack::{Kafka, shared_cassandra, shared_kafka};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backbone {
    /// `neonhub up`: everything in one process.
    Embedded,
    /// One process a role, on Kafka and Cassandra.
    Kafka,
}

pub const WORKSPACE: &str = "acme";
pub const WRITE_KEY: &str = "write-key-of-the-tests";
pub const API_KEY: &str = "api-key-of-the-tests";
/// Who may write to ClickHouse beside NeonHub.
pub const CLICKHOUSE_WRITER: &str = "neonhub";
pub const CLICKHOUSE_PASSWORD: &str = "clickhouse-password-of-the-tests";
const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A process of the binary: its role, and the arguments that make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Up,
    Olap,
    Ingest,
    /// A second process of ingest, at an address of its own.
    #[allow(dead_code, reason = "not used by tests/chaos")]
    SecondIngest,
    Processors,
    /// A second process of processors, as an instance of its own.
    SecondProcessors,
    #[allow(dead_code, reason = "used by tests/chaos only")]
    ThirdProcessors,
    Api,
    /// A second process of the query API, at an address of its own.
    #[allow(dead_code, reason = "not used by tests/chaos")]
    SecondApi,
}

impl Role {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Up => &["up"],
            Self::Olap => &["run", "olap"],
            Self::Ingest | Self::SecondIngest => &["run", "ingest"],
            Self::Processors | Self::SecondProcessors | Self::ThirdProcessors => &["run", "processors"],
            Self::Api | Self::SecondApi => &["run", "api"],
        }
    }

    /// What tells further processes of a role apart: their instance.
    fn instance(self) -> u8 {
        match self {
            Self::SecondIngest | Self::SecondProcessors | Self::SecondApi => 1,
            Self::ThirdProcessors => 2,
            _ => 0,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub timezone: Option<&'static str>,
    pub settings: Vec<(&'static str, String)>,
}

pub struct Stack {
    // In the order in which they must go: the processes before their folder.
    processes: Vec<(Role, ServerProcess)>,
    pub backbone: Backbone,
    environment: Vec<(String, String)>,
    ports: Ports,
    own_kafka: Option<Kafka>,
    scratch: ScratchFolder,
}

struct Ports {
    ingest: ReservedPort,
    second_ingest: ReservedPort,
    api: ReservedPort,
    second_api: ReservedPort,
    processors: ReservedPort,
    second_processors: ReservedPort,
    third_processors: ReservedPort,
    clickhouse: ReservedPort,
}

impl Stack {
    pub fn start(backbone: Backbone) -> Self {
        Self::start_with(backbone, Options::default(), None)
    }

    /// On a broker of its own, which the test may break.
    pub fn start_on_own_kafka(options: Options) -> Self {
        Self::start_with(Backbone::Kafka, options, Some(Kafka::start().unwrap_or_else(|error| panic!("{error}"))))
    }

    pub fn start_with(backbone: Backbone, options: Options, own_kafka: Option<Kafka>) -> Self {
        let scratch = ScratchFolder::create("neonhub").unwrap();
        let reserve = || ReservedPort::reserve().unwrap();
        let ports = Ports {
            ingest: reserve(),
            second_ingest: reserve(),
            api: reserve(),
            second_api: reserve(),
            processors: reserve(),
            second_processors: reserve(),
            third_processors: reserve(),
            clickhouse: reserve(),
        };
        let mut environment = environment(&scratch, &ports, &options);
        if backbone == Backbone::Kafka {
            let brokers = own_kafka.as_ref().unwrap_or_else(|| shared_kafka()).bootstrap_servers();
            environment.extend(real_servers(brokers));
        }
        let mut stack = Self { processes: Vec::new(), backbone, environment, ports, own_kafka, scratch };
        match backbone {
            Backbone::Embedded => stack.spawn(Role::Up),
            Backbone::Kafka => {
                stack.spawn(Role::Olap);
                stack.wait_for(Role::Olap);
                stack.command(&["topics"]);
                stack.command(&["migrate"]);
                for role in [Role::Processors, Role::Api, Role::Ingest] {
                    stack.spawn(role);
                }
            }
        }
        stack.wait_until_ready();
        stack
    }

    /// The roles that this stack is made of at its start.
    pub fn roles(&self) -> &'static [Role] {
        match self.backbone {
            Backbone::Embedded => &[Role::Up],
            Backbone::Kafka => &[Role::Olap, Role::Processors, Role::Api, Role::Ingest],
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.ports.ingest.number(), self.ports.api.number(), self.ports.clickhouse.number())
    }

    /// Of the processes of ingest.
    #[allow(dead_code, reason = "not used by tests/chaos")]
    pub fn ingest_ports(&self) -> [u16; 2] {
        [self.ports.ingest.number(), self.ports.second_ingest.number()]
    }

    #[allow(dead_code, reason = "not used by tests/chaos")]
    pub fn second_api_port(&self) -> u16 {
        self.ports.second_api.number()
    }

    pub fn kafka(&mut self) -> &mut Kafka {
        self.own_kafka.as_mut().expect("this stack has a broker of its own")
    }

    /// SIGKILL.
    pub fn kill(&mut self, role: Role) {
        self.processes.retain(|(running, _)| *running != role);
    }

    /// SIGSTOP.
    #[allow(dead_code, reason = "used by tests/chaos only")]
    pub fn freeze(&mut self, role: Role) {
        self.process(role).freeze();
    }

    /// SIGCONT.
    #[allow(dead_code, reason = "used by tests/chaos only")]
    pub fn thaw(&mut self, role: Role) {
        self.process(role).thaw();
    }

    fn process(&mut self, role: Role) -> &mut ServerProcess {
        let running = self.processes.iter_mut().find(|(running, _)| *running == role);
        &mut running.expect("the role runs").1
    }

    /// A setting of the processes that are started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// SIGTERM; whether it ended with exit code 0 in time.
    pub fn terminate(&mut self, role: Role) -> Result<(), String> {
        let place = self.processes.iter().position(|(running, _)| *running == role).ok_or("the role does not run")?;
        let (_, mut process) = self.processes.remove(place);
        let status = process.terminate(STOP_LIMIT)?;
        if status.success() { Ok(()) } else { Err(format!("{role:?} ended with {status}")) }
    }

    pub fn spawn(&mut self, role: Role) {
        let mut command: Vec<OsString> = vec!["env".into()];
        command.extend(self.environment.iter().map(|(name, value)| format!("{name}={value}").into()));
        if role.instance() > 0 {
            command.push(format!("NEONHUB_INSTANCE={}", role.instance()).into());
            command.push(format!("NEONHUB_PROCESSORS_ADDR=127.0.0.1:{}", self.processors_port(role)).into());
        }
        if role == Role::SecondIngest {
            command.push(format!("NEONHUB_INGEST_ADDR=127.0.0.1:{}", self.ports.second_ingest.number()).into());
        }
        if role == Role::SecondApi {
            command.push(format!("NEONHUB_API_ADDR=127.0.0.1:{}", self.ports.second_api.number()).into());
        }
        command.push(env!("CARGO_BIN_EXE_neonhub").into());
        command.extend(role.arguments().iter().map(OsString::from));
        let process = ServerProcess::start("neonhub", &self.log(), &command).unwrap();
        self.processes.push((role, process));
    }

    /// What all processes printed.
    pub fn log(&self) -> PathBuf {
        self.scratch.path().join("neonhub.log")
    }

    /// How many lines of the log have all of these texts.
    pub fn log_lines_with(&self, texts: &[&str]) -> usize {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).count()
    }

    pub fn ready_url(&self, role: Role) -> String {
        match role {
            Role::Olap => format!("http://127.0.0.1:{}/ping", self.ports.clickhouse.number()),
            Role::Ingest => format!("http://127.0.0.1:{}/health/ready", self.ports.ingest.number()),
            Role::SecondIngest => format!("http://127.0.0.1:{}/health/ready", self.ports.second_ingest.number()),
            Role::Processors | Role::SecondProcessors | Role::ThirdProcessors => {
                format!("http://127.0.0.1:{}/health/ready", self.processors_port(role))
            }
            Role::SecondApi => format!("http://127.0.0.1:{}/health/ready", self.ports.second_api.number()),
            Role::Up | Role::Api => format!("http://127.0.0.1:{}/health/ready", self.ports.api.number()),
        }
    }

    pub fn wait_for(&mut self, role: Role) {
        let url = self.ready_url(role);
        self.process(role)
            .wait_until_ready(START_LIMIT, || Client::answers(&url))
            .unwrap_or_else(|error| panic!("{role:?}: {error}"));
    }

    fn processors_port(&self, role: Role) -> u16 {
        match role {
            Role::SecondProcessors => self.ports.second_processors.number(),
            Role::ThirdProcessors => self.ports.third_processors.number(),
            _ => self.ports.processors.number(),
        }
    }

    pub fn wait_until_ready(&mut self) {
        for role in self.roles() {
            self.wait_for(*role);
        }
        if self.backbone == Backbone::Embedded {
            let url = format!("http://127.0.0.1:{}/health/ready", self.ports.ingest.number());
            crate::real_stack::wait_until("ingest is ready", START_LIMIT, || Ok(Client::answers(&url))).unwrap();
        }
    }

    /// Runs the binary to its end with this stack's settings; returns its standard output and whether it succeeded.
    pub fn try_command(&self, arguments: &[&str]) -> (String, bool) {
        self.try_command_with(arguments, &[])
    }

    /// The same with other settings.
    pub fn try_command_with(&self, arguments: &[&str], settings: &[(&str, &str)]) -> (String, bool) {
        let output = Command::new(env!("CARGO_BIN_EXE_neonhub"))
            .args(arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (text, output.status.success())
    }

    fn command(&self, arguments: &[&str]) {
        let (text, success) = self.try_command(arguments);
        assert!(success, "neonhub {arguments:?}: {text}");
    }

    /// `neonhub audit` finds every window equal to a recount of the raw events. Windows go out a few seconds after
    /// their events, so it is asked until it is clean.
    pub fn assert_audit_clean(&self) {
        let mut last = String::new();
        let outcome = crate::real_stack::wait_until("the audit is clean", Duration::from_secs(180), || {
            let (text, clean) = self.try_command(&["audit"]);
            last = text;
            Ok(clean)
        });
        assert!(outcome.is_ok(), "{last}");
    }

    /// The process ids of the database that `neonhub up` supervises.
    pub fn supervised_olap_processes(&self) -> Vec<u32> {
        self.processes_with("--supervised")
    }

    /// The ids of this stack's processes that were started with this argument.
    pub fn processes_with(&self, argument: &str) -> Vec<u32> {
        let marker = format!("NEONHUB_DATA_DIR={}", self.setting("NEONHUB_DATA_DIR"));
        let contains = |file: PathBuf, wanted: &str| {
            std::fs::read(file).is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|part| part == wanted.as_bytes()))
        };
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter(|entry| contains(entry.path().join("cmdline"), argument))
            .filter(|entry| contains(entry.path().join("environ"), &marker))
            .filter_map(|entry| entry.file_name().to_string_lossy().parse().ok())
            .collect()
    }

    pub fn setting(&self, name: &str) -> String {
        self.environment.iter().find(|(known, _)| known == name).map_or_else(String::new, |(_, value)| value.clone())
    }
}

/// A panicking test shows the end of what its processes said.
impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = std::fs::read_to_string(self.log()).unwrap_or_default();
            // A broker that is away is said every second.
            let lines: Vec<&str> = text.lines().filter(|line| !line.contains("BrokersDown")).collect();
            eprintln!("the end of the processes' log:\n{}", lines[lines.len().saturating_sub(120)..].join("\n"));
            let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
                "{}-{}.log",
                std::process::id(),
                std::thread::current().name().unwrap_or("test").replace("::", "-")
            ));
            if std::fs::copy(self.log(), &kept).is_ok() {
                eprintln!("all of it: {}", kept.display());
            }
            if let Some(kafka) = &self.own_kafka {
                kafka.keep_log(&kept.with_extension("kafka.log"));
            }
        }
        // Whoever needs the database goes before it.
        while let Some((_, mut process)) = self.processes.pop() {
            if is_coverage_measured() {
                // What a process did is known when it has ended by itself; one that does not is killed as ever.
                let _ended = process.terminate(STOP_LIMIT);
            }
            drop(process);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "told by whoever measures, not a setting of NeonHub")]
fn is_coverage_measured() -> bool {
    std::env::var_os("LLVM_PROFILE_FILE").is_some()
}

fn environment(scratch: &ScratchFolder, ports: &Ports, options: &Options) -> Vec<(String, String)> {
    let address = |port: &ReservedPort| format!("127.0.0.1:{}", port.number());
    let mut settings = vec![
        ("NEONHUB_DATA_DIR", scratch.path().join("data").display().to_string()),
        ("NEONHUB_INGEST_ADDR", address(&ports.ingest)),
        ("NEONHUB_API_ADDR", address(&ports.api)),
        ("NEONHUB_PROCESSORS_ADDR", address(&ports.processors)),
        ("NEONHUB_CLICKHOUSE_ADDR", address(&ports.clickhouse)),
        ("NEONHUB_BOOTSTRAP_WORKSPACE", WORKSPACE.to_owned()),
        ("NEONHUB_BOOTSTRAP_WRITE_KEY", WRITE_KEY.to_owned()),
        ("NEONHUB_BOOTSTRAP_API_KEY", API_KEY.to_owned()),
        ("NEONHUB_CLICKHOUSE_PASSWORD", CLICKHOUSE_PASSWORD.to_owned()),
        ("NEONHUB_WORKSPACE_TIMEZONE", options.timezone.unwrap_or("UTC").to_owned()),
    ];
    settings.retain(|(name, _)| options.settings.iter().all(|(chosen, _)| chosen != name));
    settings.extend(options.settings.iter().cloned());
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Each stack has topics and a keyspace of its own on the shared servers.
fn real_servers(brokers: String) -> Vec<(String, String)> {
    static STACKS: AtomicU32 = AtomicU32::new(0);
    let number = STACKS.fetch_add(1, Ordering::Relaxed);
    [
        ("NEONHUB_KAFKA_BROKERS", brokers),
        ("NEONHUB_TOPIC_PREFIX", format!("test{number}.")),
        ("NEONHUB_SCYLLA_NODES", shared_cassandra().address()),
        ("NEONHUB_SCYLLA_KEYSPACE", format!("neonhub_test{number}")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
