//! The disk full under the embedded log, on a small file system of its own: ingest answers 503, nothing is damaged, and it
//! goes on when there is room. Mounting needs root; without it the run says so and is left out.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::plan::Plan;
use crate::real_stack::scratch::ScratchFolder;
use crate::real_stack::wait_until;
use crate::senders::Senders;
use crate::stack::{Backbone, Options, Role, Stack};

/// The log keeps 256 MiB free; ClickHouse's data and the journals have to fit beside the ballast, too.
const SIZE: &str = "1536m";
const LIMIT: Duration = Duration::from_secs(120);

pub fn run() {
    let plan = Plan::from_environment();
    let scratch = ScratchFolder::create("disk").unwrap();
    let Some(disk) = Disk::mount(scratch.path().join("small")) else {
        println!("\nchaos, disk full: LEFT OUT, a small file system cannot be mounted (it needs root)");
        return;
    };
    println!("\nchaos, disk full: {SIZE} for everything, {} events/s", plan.events_per_second);
    let mut options = Options::default();
    options.settings.push(("NEONHUB_DATA_DIR", disk.path.join("data").display().to_string()));
    let mut stack = Stack::start_with(Backbone::Embedded, options, None);
    let client = stack.client();
    let senders = Senders::start(&client, plan.events_per_second);
    for (left, is_killed) in [(40 << 20, false), (0, true)] {
        let turned_away = senders.turned_away();
        fill(&disk, &senders, left);
        let refused = wait_until("ingest answers 503", LIMIT, || Ok(senders.turned_away() > turned_away + 10)).unwrap();
        assert_says_full(&client, &stack);
        let acknowledged = senders.acknowledged().total();
        let _ = wait_until("a while on a full disk", Duration::from_secs(5), || Ok(false));
        assert_eq!(senders.acknowledged().total(), acknowledged, "accepted on a full disk");
        if is_killed {
            stack.kill(Role::Up);
        }
        std::fs::remove_file(disk.ballast()).unwrap();
        let room_at = Instant::now();
        if is_killed {
            stack.spawn(Role::Up);
            stack.wait_until_ready();
        }
        wait_until("the senders have caught up", LIMIT, || Ok(senders.have_caught_up())).unwrap();
        client.wait_for_at_least(senders.acknowledged().total());
        println!(
            "  full after {acknowledged} acknowledged, 503 within {:.1} s{}; room again: lag zero after {:.1} s",
            refused.as_secs_f64(),
            if is_killed { ", killed while full" } else { "" },
            room_at.elapsed().as_secs_f64(),
        );
    }
    let turned_away = senders.turned_away();
    let acknowledged = senders.finish().total();
    client.wait_for_events(acknowledged);
    stack.assert_audit_clean();
    println!(
        "acknowledged {acknowledged}, landed once each, audit clean; {turned_away} answers of 503; \
         ClickHouse could not write {} times",
        stack.log_lines_with(&["the OLAP engine cannot write"]),
    );
    assert!(turned_away > 0);
    drop(stack);
}

/// Takes all the room but this.
fn fill(disk: &Disk, senders: &Senders, left: u64) {
    let before = senders.acknowledged().total();
    wait_until("events flow", LIMIT, || Ok(senders.acknowledged().total() > before + 500)).unwrap();
    // What others write meanwhile may be just what was free: then there is less to take.
    let is_taken = || {
        let room = disk.free_bytes().saturating_sub(left);
        let ballast = Command::new("fallocate").args(["-l", &room.to_string()]).arg(disk.ballast()).output();
        Ok(ballast.is_ok_and(|ballast| ballast.status.success()))
    };
    wait_until("the room is taken", LIMIT, is_taken).unwrap();
}

/// Senders are told what to do, the operator why.
fn assert_says_full(client: &Client, stack: &Stack) {
    let event = br#"{"type":"click","campaign":"c-0"}"#;
    let answer = client.try_post("/v1/campaigns/events", event).unwrap();
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("send the same events again"), "{}", answer.body);
    assert!(stack.log_lines_with(&["the disk is full"]) > 0);
}

/// A file system in memory.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn mount(path: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&path).unwrap();
        let arguments = ["-t", "tmpfs", "-o", &format!("size={SIZE}"), "neonhub-chaos"];
        let mounted = Command::new("mount").args(arguments).arg(&path).output().ok()?;
        mounted.status.success().then_some(Self { path })
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    fn free_bytes(&self) -> u64 {
        free_bytes(&self.path)
    }
}

fn free_bytes(folder: &Path) -> u64 {
    let filesystem = rustix::fs::statvfs(folder).unwrap();
    filesystem.f_bavail * filesystem.f_frsize
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is still ending may hold it.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
