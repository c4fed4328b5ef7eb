//! Webhooks of connected platforms: whose they are is told by the secret that signed them, not by a write key.

use std::collections::HashMap;

use std::sync::Arc;

use axum::http::HeaderMap;
use neonhub_schemas::ids::is_workspace_name;

use super::body::BodyError;
use super::judgement::{Judge, Judgement};
use super::keys::KnownKey;
use super::state::{ConfigError, Elapsed};
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
    key: Arc<KnownKey>,
}

impl WebhookRing {
    /// # Errors
    /// A secret cannot be worked with; it is named by its workspace and platform.
    pub(super) fn new(secrets: Vec<WebhookSecret>, elapsed: &Elapsed) -> Result<Self, ConfigError> {
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
            let key = Arc::new(KnownKey::new(WriteKey::new(workspace, secret, name.clone()), elapsed));
            signers.push(Signer { platform: name, secret: signing, key });
        }
        Ok(Self(signers))
    }

    /// Tries every secret of the platform, whichever it is, so that the time taken tells nothing.
    fn find(&self, platform: &str, head: &SignedHead<'_>, body: &[u8]) -> Option<&Arc<KnownKey>> {
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

/// The signature is over the body as it is without `Content-Encoding`.
pub(super) fn judge(
    judge: &mut Judge<'_>,
    platform: &str,
    headers: &HeaderMap,
    body: Result<&[u8], BodyError>,
) -> Judgement {
    let bytes = match body {
        Ok(bytes) => bytes,
        Err(BodyError::Problem(problem)) => return problem.into(),
        Err(BodyError::Refused { refusal, beginning }) => return judge.refuse_stranger(&refusal, &beginning),
    };
    judge.state.metrics().plain_bytes(bytes.len());
    let (head, key) = match verified(judge, platform, headers, bytes) {
        Ok(verified) => verified,
        Err(refusal) => return judge.refuse_stranger(&refusal, bytes),
    };
    let route = Route::Webhook { platform, message_id: head.id, sent_at_ms: head.sent_at_ms() };
    match Body::parse(route, bytes) {
        Ok(parsed) => judge.accept(route, &parsed, key, bytes),
        Err(refusal) => judge.refuse(Some(key), &refusal, bytes),
    }
}

fn verified<'h, 'k>(
    judge: &Judge<'k>,
    platform: &str,
    headers: &'h HeaderMap,
    body: &[u8],
) -> Result<(SignedHead<'h>, &'k Arc<KnownKey>), Refusal> {
    let head = SignedHead::read(headers)?;
    head.check_time(judge.received_at_ms)?;
    let key = judge.state.webhooks().find(platform, &head, body).ok_or_else(SignedHead::unknown_signer)?;
    Ok((head, key))
}
