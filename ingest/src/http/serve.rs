//! Serving until told to stop: then no new connections, the requests under way to their end, the log flushed.

use std::future::Future;
use std::pin::Pin;

use axum::Router;
use tokio::sync::oneshot;

use super::routes::router;
use super::state::IngestState;
use crate::sink::SinkError;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("requests were still under way when the time to drain was over")]
    DrainTimeout,
    #[error("the log could not be flushed: {0}")]
    Flush(#[from] SinkError),
}

/// Resolves when a server is to accept no more.
pub type ToldToStop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Lets `server` serve this crate's router. It is handed in, since what it may take of the machine is the process's affair;
/// it returns when it was told to stop and has answered every request under way. Resolves after `shutdown` has, once
/// everything is answered and flushed.
///
/// # Errors
/// The shutdown was not clean.
pub async fn serve<Serving>(
    state: IngestState,
    shutdown: impl Future<Output = ()> + Send + 'static,
    server: impl FnOnce(Router, ToldToStop) -> Serving,
) -> Result<(), ServeError>
where
    Serving: Future<Output = ()>,
{
    let drain = state.limits().drain_timeout;
    let (stopping, stopped) = oneshot::channel();
    let told = {
        let state = state.clone();
        async move {
            shutdown.await;
            state.start_draining();
            // Nobody listens when the server has ended by itself.
            let _ended = stopping.send(());
        }
    };
    let serving = server(router(state.clone()), Box::pin(told));
    let overdue = async {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(drain).await;
    };
    let served = tokio::select! {
        () = serving => Ok(()),
        () = overdue => Err(ServeError::DrainTimeout),
    };
    let flushed = state.sink().close(drain).await;
    served?;
    Ok(flushed?)
}
