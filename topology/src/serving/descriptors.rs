//! File descriptors: each connection takes one, and so does each file of the log.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For everything in a process that is no connection.
const RESERVED: u64 = 1_024;

/// The services of one process that take connections from anybody: ingest and the query API.
const SERVICES: u64 = 2;

/// Takes as many as the system grants to those who ask: its default is for programs from another time.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit of file descriptors stays as it is");
    }
}

/// As many connections of one service as there may be, so that they never take the descriptors that files need.
pub fn connections_at_most(wanted: usize) -> usize {
    let Some(descriptors) = getrlimit(Resource::Nofile).current else { return wanted };
    let possible = share(descriptors);
    if possible < wanted {
        tracing::warn!(wanted, possible, descriptors, "fewer connections than wanted: raise the limit of open files");
    }
    wanted.min(possible)
}

fn share(descriptors: u64) -> usize {
    let spare = descriptors.saturating_sub(RESERVED).max(descriptors / 2);
    usize::try_from(spare / SERVICES).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn files_keep_their_share() {
        assert_eq!((share(65_536), share(1_024), share(0)), (32_256, 256, 1));
    }
}
