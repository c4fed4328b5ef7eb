//! The HTTP face: routes, bodies, keys, quotas, answers. What a request means is decided in [`crate::accept`].

mod answer;
mod body;
mod decompress;
mod door;
mod health;
mod http_span;
mod intake;
mod judgement;
mod keys;
mod metrics;
mod pixel;
mod problem;
mod quota;
mod request_id;
mod routes;
mod serve;
mod state;
mod webhook_signature;
mod webhooks;

pub use answer::{Accepted, RejectedEvent};
pub use problem::{EventProblems, Problem};
pub use routes::{openapi, router};
pub use serve::{ServeError, ToldToStop, serve};
pub use state::{Clock, ConfigError, Elapsed, IngestState, Random};

/// Decoders that nobody else needs to see.
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzed {
    pub(crate) use super::decompress::{DecompressError, Encoding, decompress, encodings};
    pub(crate) use super::keys::stated_in_head;
    pub(crate) use super::webhook_signature::{SignedHead, SigningSecret};
}
