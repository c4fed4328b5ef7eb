//! What a process used, as Linux accounts for it.

use std::time::Instant;

use anyhow::Context as _;

/// User and system time, all threads. The unit of `/proc` is a hundredth of a second.
pub fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).context("CPU time is read from /proc")?;
    // The name, in parentheses, may hold blanks: fields are counted from behind it.
    let (_, fields) = stat.rsplit_once(')').context("/proc/…/stat has another form")?;
    let field = |number: usize| fields.split_whitespace().nth(number).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = (field(11).context("no user time")?, field(12).context("no system time")?);
    #[expect(clippy::cast_precision_loss, reason = "it is 100")]
    Ok((user + system) / rustix::param::clock_ticks_per_second() as f64)
}

/// User and system time of this thread, to the nanosecond: for what takes less than a hundredth of a second.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a second")]
pub fn thread_cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The most memory that a process ever had resident.
pub fn peak_rss_mb(process: u32) -> Option<f64> {
    Some(kilobytes(process, "VmHWM:")? / 1024.0)
}

/// What this process has resident now.
pub fn resident_bytes() -> anyhow::Result<f64> {
    Ok(kilobytes(std::process::id(), "VmRSS:").context("memory is read from /proc")? * 1024.0)
}

fn kilobytes(process: u32, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status.lines().find(|line| line.starts_with(name))?.split_whitespace().nth(1)?.parse().ok()
}

/// Measures a process from now on.
pub struct Meter {
    process: u32,
    cpu: f64,
    began: Instant,
}

/// CPU seconds and wall seconds.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    pub cpu: f64,
    pub wall: f64,
}

impl Meter {
    pub fn of(process: u32) -> anyhow::Result<Self> {
        Ok(Self { process, cpu: cpu_seconds(process)?, began: Instant::now() })
    }

    pub fn this_process() -> anyhow::Result<Self> {
        Self::of(std::process::id())
    }

    pub fn used(&self) -> anyhow::Result<Used> {
        let cpu = cpu_seconds(self.process)? - self.cpu;
        Ok(Used { cpu: cpu.max(0.01), wall: self.began.elapsed().as_secs_f64() })
    }
}
