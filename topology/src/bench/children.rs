//! A role in a process of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

const START_LIMIT: Duration = Duration::from_secs(60);

/// Ended (SIGKILL) when dropped.
pub struct Role(Child);

impl Role {
    /// This binary with these arguments and settings.
    pub fn start(arguments: &[&str], settings: &[(&str, String)]) -> anyhow::Result<Self> {
        let binary = std::env::current_exe().context("the path of this binary")?;
        let child = Command::new(binary)
            .args(arguments)
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .env("NEONHUB_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("neonhub {arguments:?}"))?;
        Ok(Self(child))
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Until a URL answers with success.
    pub async fn ready(&mut self, http: &reqwest::Client, url: &str) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        loop {
            if http.get(url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if let Some(status) = self.0.try_wait()? {
                anyhow::bail!("it ended with {status} before {url} answered");
            }
            anyhow::ensure!(tokio::time::Instant::now() < deadline, "{url} does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if let Err(error) = self.0.kill().and_then(|()| self.0.wait()) {
            tracing::warn!(%error, "a child could not be ended");
        }
    }
}

/// What `neonhub bench …` prints, in a process of its own.
pub fn bench_apart(arguments: &[&str]) -> anyhow::Result<serde_json::Value> {
    let binary = std::env::current_exe().context("the path of this binary")?;
    let output = Command::new(binary)
        .arg("bench")
        .args(arguments)
        .arg("--json")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("neonhub bench {arguments:?}"))?;
    anyhow::ensure!(output.status.success(), "neonhub bench {arguments:?}: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Free a moment ago.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
