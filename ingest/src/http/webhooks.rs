//! Webhooks of connected platforms: whose they are is told by the secret that signed them, not by a write key.

use std::collections::HashMap;

use axum::body::Body as HttpBody;
use axum::http::HeaderMap;
use neonhub_schemas::ids::is_workspace_name;

use super::answer::Accepted;
use super::body::{BodyError, read_body};
use super::intake::Intake;
use super::keys::KnownKey;
use super::problem::Problem;
use super::state::{Clock, ConfigError};
use super::webhook_signature::{SignedHead, SigningSecret};
use crate::accept::{Body, Refusal, Route};
use crate::config::{WebhookSecret, WriteKey};

const ANY_PLATFORM: &str = "*";

/// The secrets that webhooks may be signed with.
pub(super) struct WebhookRing(Vec<Signer>);

struct Signer {
    platform: String,
    secret: SigningSecret,
    /// Its workspace and quota.
    key: KnownKey,
}

impl WebhookRing {
    /// # Errors
    /// A secret cannot be worked with; it is named by its workspace and platform.
    pub(super) fn new(secrets: Vec<WebhookSecret>, clock: &Clock) -> Result<Self, ConfigError> {
        let mut workspaces: HashMap<String, String> = HashMap::new();
        let mut signers = Vec::with_capacity(secrets.len());
        for WebhookSecret { workspace, platform, secret } in secrets {
            let fault =
                |fault| ConfigError::Webhook { workspace: workspace.clone(), platform: platform.clone(), fault };
            let name = platform.to_ascii_lowercase();
            if !is_workspace_name(&workspace) {
                return Err(fault("a workspace is 1 to 64 of a-z, 0-9, - and _"));
            }
            if name != ANY_PLATFORM && !is_workspace_name(&name) {
                return Err(fault("a platform is 1 to 64 of a-z, 0-9, - and _, or *"));
            }
            let signing = SigningSecret::parse(&secret);
            let signing = signing.ok_or_else(|| fault("must be whsec_ and at least 24 bytes in base64"))?;
            let owner = workspaces.entry(secret.clone()).or_insert_with(|| workspace.clone());
            if *owner != workspace {
                return Err(fault("another workspace has the same, so whose a webhook is could not be told"));
            }
            let key = KnownKey::new(WriteKey::new(workspace, secret, name.clone()), clock);
            signers.push(Signer { platform: name, secret: signing, key });
        }
        Ok(Self(signers))
    }

    /// Tries every secret of the platform, whichever it is, so that the time taken tells nothing.
    fn find(&self, platform: &str, head: &SignedHead<'_>, body: &[u8]) -> Option<&KnownKey> {
        let mut found = None;
        for signer in &self.0 {
            let is_for_platform = signer.platform == platform || signer.platform == ANY_PLATFORM;
            if is_for_platform && head.is_signed_with(&signer.secret, body) {
                found = Some(&signer.key);
            }
        }
        found
    }
}

/// Takes in one webhook. The signature is over the body as it is without `Content-Encoding`.
pub(super) async fn take_in(
    intake: &Intake<'_>,
    platform: &str,
    headers: &HeaderMap,
    body: HttpBody,
    quota_headers: &mut HeaderMap,
) -> Result<Accepted, Problem> {
    let plain = match read_body(intake.state, headers, body).await {
        Ok(plain) => plain,
        Err(BodyError::Problem(problem)) => return Err(*problem),
        Err(BodyError::Refused { refusal, beginning }) => {
            return Err(intake.refuse_stranger(&refusal, &beginning).await);
        }
    };
    let bytes = plain.bytes.as_slice();
    intake.state.metrics().plain_bytes(bytes.len());
    let (head, key) = match verified(intake, platform, headers, bytes) {
        Ok(verified) => verified,
        Err(refusal) => return Err(intake.refuse_stranger(&refusal, bytes).await),
    };
    let route = Route::Webhook { platform, message_id: head.id, sent_at_ms: head.sent_at_ms() };
    let parsed = match Body::parse(route, bytes) {
        Ok(parsed) => parsed,
        Err(refusal) => return Err(intake.refuse(Some(key), &refusal, bytes).await),
    };
    intake.take_quota(key, parsed.event_count(), quota_headers).map_err(|problem| *problem)?;
    intake.accept(route, &parsed, key, bytes).await
}

fn verified<'a>(
    intake: &Intake<'a>,
    platform: &str,
    headers: &'a HeaderMap,
    body: &[u8],
) -> Result<(SignedHead<'a>, &'a KnownKey), Refusal> {
    let head = SignedHead::read(headers)?;
    head.check_time(intake.received_at_ms)?;
    let key = intake.state.webhooks().find(platform, &head, body).ok_or_else(SignedHead::unknown_signer)?;
    Ok((head, key))
}
