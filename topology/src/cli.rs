//! The command line.

mod running;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use neonhub_topology::bench::{self, Bench};
use neonhub_topology::clients::{TopicWork, check_or_create_topics, http_client, migrate};
use neonhub_topology::commands::keys::{self, KeyCommand};
use neonhub_topology::commands::replay::{self, ReplayOptions};
use neonhub_topology::commands::simulate::{self, SimulateOptions};
use neonhub_topology::commands::status::{self, Targets};
use neonhub_topology::commands::{audit, backup, demonstration, doctor};
use neonhub_topology::roles::olap;
use neonhub_topology::serving::descriptors;
use neonhub_topology::settings::{SETTINGS, Settings};
use neonhub_topology::simulation::breaks::Break;
use neonhub_topology::{graph, telemetry};
use running::{Role, run_role, run_up};

/// Real-time marketing intelligence: events in over HTTP, exact metric windows out of ClickHouse and live.
#[derive(Parser)]
#[command(version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything in this process, on the embedded stack or on the servers that the settings name.
    Up,
    /// Run one role.
    #[command(subcommand)]
    Run(Role),
    /// Apply the ClickHouse migrations.
    Migrate,
    /// Create the Kafka topics that are missing, and check the others. Nothing is ever deleted.
    Topics {
        /// Only report what would be done.
        #[arg(long)]
        check: bool,
        /// Also change retention and cleanup of topics that are there to what this version makes them with.
        #[arg(long, conflicts_with = "check")]
        apply: bool,
    },
    /// Show who writes and reads which topic.
    Graph {
        /// As a Mermaid flowchart.
        #[arg(long)]
        mermaid: bool,
    },
    /// Recount every metric window from the raw events and list those that differ; exit code 1 if any does.
    Audit {
        /// RFC 3339; only windows from here on.
        #[arg(long)]
        from: Option<String>,
        /// RFC 3339; only windows that end by here.
        #[arg(long)]
        to: Option<String>,
        #[arg(long)]
        json: bool,
    },
    /// Post the Open Bandit sample through a stack of its own and compare three counts of it; exit code 1 if they differ.
    Demo {
        /// Folder with {random,bts}/{all,men,women}.csv; absent: where `deploy/fetch-demo-data.sh` puts it.
        #[arg(long)]
        data: Option<PathBuf>,
        #[arg(long)]
        json: bool,
    },
    /// Post recorded events: NDJSON, or CSV and TSV with a mapping. Replaying twice counts once.
    Replay {
        /// `-` is standard input.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// TOML; which column goes where.
        #[arg(long)]
        mapping: Option<PathBuf>,
        /// Of ingest; NEONHUB_INGEST_ADDR if absent.
        #[arg(long)]
        url: Option<String>,
        /// NEONHUB_BOOTSTRAP_WRITE_KEY if absent.
        #[arg(long)]
        write_key: Option<String>,
        /// Events a second.
        #[arg(long)]
        rate: Option<u32>,
        #[arg(long, default_value_t = 100)]
        batch: usize,
        #[arg(long)]
        json: bool,
        /// Post to /v1/import: times are taken as they are.
        #[arg(long)]
        as_import: bool,
    },
    /// Play the whole topology on the log in memory, with everything going wrong that a seed can think of; exit code 1 if
    /// anything is lost, doubled or wrong.
    Simulate {
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Threads; as many as there are cores if absent.
        #[arg(long)]
        jobs: Option<usize>,
        /// Break a promise on purpose: the simulation has to notice.
        #[arg(long = "break")]
        broken: Option<Break>,
        #[arg(long)]
        json: bool,
    },
    /// Make, list, rotate and revoke keys, over the query API.
    Keys {
        #[command(subcommand)]
        command: KeyCommand,
        /// Of the query API; NEONHUB_API_ADDR if absent.
        #[arg(long, global = true)]
        url: Option<String>,
        /// A key with the scope admin; NEONHUB_BOOTSTRAP_API_KEY if absent.
        #[arg(long, global = true)]
        api_key: Option<String>,
        #[arg(long, global = true)]
        json: bool,
    },
    /// Write the embedded stack's data folder into one file; the stack must be stopped.
    Backup {
        /// Must not be there yet, like neonhub-2026-11-28.tar.zst.
        file: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Put the data folder back from such a file; it must not be there, or be empty.
    Restore {
        file: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Show what the roles say of themselves: readiness, lag, watermarks, throughput; exit code 1 if one is not ready.
    Status {
        /// Of ingest; may be given several times. NEONHUB_INGEST_ADDR if absent.
        #[arg(long)]
        ingest: Vec<String>,
        /// Of processors. NEONHUB_PROCESSORS_ADDR if absent.
        #[arg(long)]
        processors: Vec<String>,
        /// Of the query API. NEONHUB_API_ADDR if absent.
        #[arg(long)]
        api: Vec<String>,
        /// Draw it anew every second, until Ctrl-C.
        #[arg(long, conflicts_with = "json")]
        watch: bool,
        #[arg(long)]
        json: bool,
    },
    /// Check settings, keys, disk, topics, ClickHouse, migrations, clock and store, and say what to do; exit code 1 if
    /// something is wrong.
    Doctor {
        #[arg(long)]
        json: bool,
    },
    /// Measure speed beside its limit.
    Bench {
        #[command(subcommand)]
        what: Bench,
        #[arg(long, global = true)]
        json: bool,
    },
    /// List the settings.
    Settings,
}

/// Exit code of what could not be done; 1 is for what was done and found wrong.
const COULD_NOT: u8 = 2;

/// The engine parses and analyses nested statements recursively, on threads that it is used to have 8 MiB on.
const OLAP_STACK_BYTES: usize = 16 << 20;

/// In the cache, as `deploy/fetch-demo-data.sh` names it.
const DEMO_DATA: &str = "obp-0.4.1";

impl Cli {
    pub fn run(self) -> ExitCode {
        match self.execute() {
            Ok(code) => code,
            Err(error) => {
                eprintln!("neonhub: {error:#}");
                ExitCode::from(COULD_NOT)
            }
        }
    }

    fn execute(self) -> anyhow::Result<ExitCode> {
        match &self.command {
            Command::Graph { mermaid: true } => print!("{}", graph::to_mermaid()),
            Command::Settings => print_settings(),
            Command::Simulate { seeds, from, jobs, broken, json } => {
                let options = SimulateOptions { seeds: *seeds, from: *from, jobs: *jobs, broken: *broken };
                let report = simulate::run(options);
                if *json {
                    println!("{}", serde_json::to_string(&report)?);
                } else {
                    print!("{report}");
                }
                return Ok(exit_code(report.failure.is_none()));
            }
            _ => return self.with_settings(),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn with_settings(self) -> anyhow::Result<ExitCode> {
        let (mut settings, values) = Settings::from_process()?;
        if matches!(
            self.command,
            Command::Demo { .. } | Command::Bench { .. } | Command::Status { .. } | Command::Doctor { .. }
        ) && values.is_default("log")
        {
            // The progress bar and the report speak for it.
            "warn".clone_into(&mut settings.log.filter);
        }
        let log = telemetry::init(&settings.log)?;
        descriptors::raise_limit();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if matches!(self.command, Command::Run(Role::Olap { .. })) {
            runtime.thread_stack_size(OLAP_STACK_BYTES);
        }
        let runtime = runtime.enable_all().build()?;
        runtime.block_on(async {
            // Other commands end with their terminal.
            if matches!(self.command, Command::Up | Command::Run(_)) {
                tokio::spawn(async move {
                    if let Err(error) = log.follow_settings().await {
                        tracing::warn!(%error, "signals cannot be listened to: what is logged cannot be changed");
                    }
                });
            }
            match self.command {
                Command::Up => run_up(&settings, olap::library(&settings, &values)).await?,
                Command::Run(role) => run_role(role, &settings, &values).await?,
                Command::Migrate => {
                    let applied = migrate(&settings).await?;
                    println!("{} migrations applied", applied.len());
                    applied.iter().for_each(|name| println!("  {name}"));
                }
                Command::Topics { check, apply } => {
                    let work = match (check, apply) {
                        (true, _) => TopicWork::Check,
                        (_, true) => TopicWork::Apply,
                        _ => TopicWork::Create,
                    };
                    return topics(&settings, work).await;
                }
                Command::Graph { .. } => print!("{}", graph::to_text(settings.backbone.partitions)),
                Command::Audit { from, to, json } => return run_audit(&settings, from, to, json).await,
                Command::Demo { data, json } => {
                    let library = olap::library(&settings, &values);
                    let data = data.unwrap_or_else(|| values.path("cache_dir").unwrap_or_default().join(DEMO_DATA));
                    anyhow::ensure!(
                        data.is_dir(),
                        "{} is not there: run deploy/fetch-demo-data.sh, or name the folder with --data",
                        data.display()
                    );
                    return demonstration::run(settings, library, data, json).await;
                }
                Command::Replay { files, mapping, url, write_key, rate, batch, json, as_import } => {
                    let write_key = write_key.or_else(|| settings.access.write_key.clone());
                    let url = url.unwrap_or_else(|| own_url(&settings, settings.ingest_addr));
                    let options = ReplayOptions {
                        client: client(&settings, std::iter::once(&url))?,
                        files,
                        mapping,
                        url,
                        write_key: write_key
                            .ok_or_else(|| anyhow::anyhow!("give --write-key or set NEONHUB_BOOTSTRAP_WRITE_KEY"))?,
                        rate,
                        batch,
                        json,
                        as_import,
                    };
                    return Ok(exit_code(replay::run(options).await?.is_clean()));
                }
                Command::Status { ingest, processors, api, watch, json } => {
                    let or_own = |named: Vec<String>, address| {
                        if named.is_empty() { vec![own_url(&settings, address)] } else { named }
                    };
                    let processors_url = format!("http://{}", settings.processors_addr);
                    let ingest = or_own(ingest, settings.ingest_addr);
                    let api = or_own(api, settings.api_addr);
                    let targets = Targets {
                        client: client(&settings, ingest.iter().chain(&api))?,
                        ingest,
                        processors: if processors.is_empty() { vec![processors_url] } else { processors },
                        api,
                    };
                    return show_status(&targets, watch, json).await;
                }
                Command::Backup { file, json } => {
                    print_outcome(&backup::create(&settings.data_dir, &file)?, json)?;
                }
                Command::Restore { file, json } => {
                    print_outcome(&backup::restore(&file, &settings.data_dir)?, json)?;
                }
                Command::Doctor { json } => {
                    let report = doctor::examine(&settings, &values, &olap::library(&settings, &values)).await;
                    if json {
                        println!("{}", serde_json::to_string(&report)?);
                    } else {
                        print!("{report}");
                    }
                    return Ok(exit_code(report.is_fine()));
                }
                Command::Keys { command, url, api_key, json } => {
                    let api_key = api_key.or_else(|| settings.access.api_key.clone());
                    let url = url.unwrap_or_else(|| own_url(&settings, settings.api_addr));
                    let target = keys::Target {
                        client: client(&settings, std::iter::once(&url))?,
                        url,
                        api_key: api_key
                            .ok_or_else(|| anyhow::anyhow!("give --api-key or set NEONHUB_BOOTSTRAP_API_KEY"))?,
                    };
                    keys::run(command, &target, json).await?;
                }
                Command::Bench { what, json } => {
                    let figure = bench::run(what, &settings, olap::library(&settings, &values)).await?;
                    if json {
                        println!("{}", serde_json::to_string(&figure)?);
                    } else {
                        println!("{figure}");
                    }
                    return Ok(exit_code(figure.right));
                }
                Command::Settings | Command::Simulate { .. } => {}
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

async fn show_status(targets: &Targets, watch: bool, json: bool) -> anyhow::Result<ExitCode> {
    loop {
        let status = status::look(targets).await;
        if watch {
            // Home, and away with what was there.
            print!("\x1b[H\x1b[2J{status}");
            std::io::Write::flush(&mut std::io::stdout())?;
            continue;
        }
        if json {
            println!("{}", serde_json::to_string(&status)?);
        } else {
            print!("{status}");
        }
        return Ok(exit_code(status.is_ready()));
    }
}

fn print_outcome(outcome: &(impl serde::Serialize + std::fmt::Display), json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(outcome)?);
    } else {
        println!("{outcome}");
    }
    Ok(())
}

fn exit_code(is_fine: bool) -> ExitCode {
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_settings() {
    for setting in SETTINGS {
        let name = format!("NEONHUB_{}", setting.name.to_ascii_uppercase());
        println!("{name:<40} {:<22} {}", setting.default, setting.about);
    }
}

/// Where ingest or the query API of these settings answers.
fn own_url(settings: &Settings, address: std::net::SocketAddr) -> String {
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{address}")
}

/// For these addresses. Trusts whoever shows the certificate of these settings.
fn client<'a>(settings: &Settings, mut urls: impl Iterator<Item = &'a String>) -> anyhow::Result<reqwest::Client> {
    let over_tls = urls.any(|url| url.starts_with("https:"));
    http_client(settings.tls.as_ref().filter(|_| over_tls).map(|files| files.certificate.as_path()))
}

async fn topics(settings: &Settings, work: TopicWork) -> anyhow::Result<ExitCode> {
    if settings.is_embedded_log() {
        println!("the embedded log makes its topics itself; set NEONHUB_KAFKA_BROKERS for a cluster");
        return Ok(ExitCode::SUCCESS);
    }
    let mut all_fine = true;
    for report in check_or_create_topics(&settings.backbone, work).await? {
        println!("{:<40} {:>4} partitions  {}", report.topic, report.partitions, report.state);
        all_fine &= report.is_fine;
    }
    Ok(exit_code(all_fine))
}

async fn run_audit(
    settings: &Settings,
    from: Option<String>,
    to: Option<String>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut range = audit::Range::default();
    if let Some(from) = from {
        range.from_ms =
            neonhub_schemas::time::parse_ms(&from).context("--from takes RFC 3339, like 2026-01-31T00:00:00Z")?;
    }
    if let Some(to) = to {
        range.to_ms = neonhub_schemas::time::parse_ms(&to).context("--to takes RFC 3339, like 2026-01-31T00:00:00Z")?;
    }
    let report = audit::run(settings, range).await?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(exit_code(report.is_clean()))
}
