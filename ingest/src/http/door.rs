//! The doors requests come in by: path and meaning.

use neonhub_schemas::{Kind, Source};

use crate::accept::Route;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Call(Kind),
    Batch,
    Import,
    Campaign,
    Integration { platform: String },
    Webhook { platform: String },
    Pixel,
}

/// The tracking API's paths, long and short as in Segment's, and the one that RudderStack's beacons go to.
pub(super) const TRACKING_PATHS: [(&str, Door); 16] = [
    ("/v1/track", Door::Call(Kind::Track)),
    ("/v1/t", Door::Call(Kind::Track)),
    ("/v1/identify", Door::Call(Kind::Identify)),
    ("/v1/i", Door::Call(Kind::Identify)),
    ("/v1/page", Door::Call(Kind::Page)),
    ("/v1/p", Door::Call(Kind::Page)),
    ("/v1/screen", Door::Call(Kind::Screen)),
    ("/v1/s", Door::Call(Kind::Screen)),
    ("/v1/group", Door::Call(Kind::Group)),
    ("/v1/g", Door::Call(Kind::Group)),
    ("/v1/alias", Door::Call(Kind::Alias)),
    ("/v1/a", Door::Call(Kind::Alias)),
    ("/v1/batch", Door::Batch),
    ("/v1/b", Door::Batch),
    ("/v1/import", Door::Import),
    ("/beacon/v1/batch", Door::Batch),
];

impl Door {
    /// `None` for the pixel and for webhooks, whose meaning is in the query or in headers too.
    pub(super) fn route(&self) -> Option<Route<'_>> {
        Some(match self {
            Self::Call(kind) => Route::Call(*kind),
            Self::Batch => Route::Batch,
            Self::Import => Route::Import,
            Self::Campaign => Route::Campaign,
            Self::Integration { platform } => Route::Integration { platform },
            Self::Pixel | Self::Webhook { .. } => return None,
        })
    }

    /// All labels there are.
    pub(super) const LABELS: [&str; 12] = [
        "track",
        "identify",
        "page",
        "screen",
        "group",
        "alias",
        "batch",
        "import",
        "campaign",
        "integration",
        "webhook",
        "pixel",
    ];

    /// The label in metrics and the operation's name: few, whatever clients send.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Call(kind) => kind.as_str(),
            Self::Batch => "batch",
            Self::Import => "import",
            Self::Campaign => "campaign",
            Self::Integration { .. } => "integration",
            Self::Webhook { .. } => "webhook",
            Self::Pixel => "pixel",
        }
    }
}

pub(super) fn source_of(route: Route<'_>) -> Source {
    match route {
        Route::Call(_) | Route::Batch | Route::Import => Source::Behavior,
        Route::Campaign => Source::Campaign,
        Route::Integration { .. } | Route::Webhook { .. } => Source::Integration,
    }
}
