//! Serving until told to stop: then no new connections, the requests under way to their end, the log flushed.

use std::future::Future;

use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::routes::router;
use super::state::IngestState;
use crate::sink::SinkError;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the listener failed: {0}")]
    Listener(#[from] std::io::Error),
    #[error("requests were still under way when the time to drain was over")]
    DrainTimeout,
    #[error("the log could not be flushed: {0}")]
    Flush(#[from] SinkError),
}

/// Resolves after `shutdown` has, once everything is answered and flushed.
///
/// # Errors
/// The listener failed, or the shutdown was not clean.
pub async fn serve<F>(listener: TcpListener, state: IngestState, shutdown: F) -> Result<(), ServeError>
where
    F: Future<Output = ()> + Send + 'static,
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
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
    });
    let server =
        axum::serve(listener, router(state.clone()).into_make_service()).with_graceful_shutdown(told).into_future();
    let overdue = async {
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(drain).await;
    };
    let served = tokio::select! {
        served = server => served.map_err(ServeError::from),
        () = overdue => Err(ServeError::DrainTimeout),
    };
    let flushed = state.sink().close(drain).await;
    served?;
    Ok(flushed?)
}
