//! The child's side of the supervision: standard input is a pipe from the parent, and its end means that the parent is gone,
//! killed or not.

use std::io::Read as _;
use std::time::Duration;

use tokio::sync::oneshot;

/// What a child returns with when its parent is gone and it could not stop in time.
const ORPHAN_EXIT_CODE: i32 = 3;

/// Resolves when the parent is gone. `grace` later the process exits, whatever still runs: the data directory has to be free
/// for the next one.
pub async fn gone(grace: Duration) {
    let (notify, noticed) = oneshot::channel();
    let spawned = std::thread::Builder::new().name("parent-watch".to_owned()).spawn(move || {
        let mut ignored = [0_u8; 64];
        let mut input = std::io::stdin().lock();
        while !matches!(input.read(&mut ignored), Ok(0)) {}
        // Nobody listening means that the process is on its way out already.
        let _ = notify.send(());
        std::thread::sleep(grace);
        std::process::exit(ORPHAN_EXIT_CODE);
    });
    match spawned {
        Ok(_) => {
            let _ = noticed.await;
        }
        Err(error) => tracing::error!(%error, "the parent cannot be watched: stopping"),
    }
}
