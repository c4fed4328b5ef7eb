//! Pure: no I/O, no clock, no async.

use serde::{Deserialize, Serialize};

use crate::topics::Topic;

/// The family an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// What people do, from tracking SDKs.
    Behavior,
    /// What campaigns do and cause.
    Campaign,
    /// What connected platforms report.
    Integration,
}

impl Source {
    pub const ALL: [Self; 3] = [Self::Behavior, Self::Campaign, Self::Integration];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Behavior => "behavior",
            Self::Campaign => "campaign",
            Self::Integration => "integration",
        }
    }

    /// Events as accepted.
    #[must_use]
    pub fn raw_topic(self) -> Topic {
        match self {
            Self::Behavior => Topic::RawBehavior,
            Self::Campaign => Topic::RawCampaign,
            Self::Integration => Topic::RawIntegration,
        }
    }

    /// Events refined, each once.
    #[must_use]
    pub fn events_topic(self) -> Topic {
        match self {
            Self::Behavior => Topic::EventsBehavior,
            Self::Campaign => Topic::EventsCampaign,
            Self::Integration => Topic::EventsIntegration,
        }
    }

    #[must_use]
    pub fn of_topic(topic: Topic) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.raw_topic() == topic || source.events_topic() == topic)
    }
}

/// What happened. The first six are Segment's calls, the next eight a campaign's life, the last an integration's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Track,
    Page,
    Screen,
    Identify,
    Group,
    Alias,
    Impression,
    Click,
    Send,
    Open,
    Bounce,
    Unsubscribe,
    Conversion,
    Spend,
    Integration,
}

impl Kind {
    pub const BEHAVIOR: [Self; 6] = [Self::Track, Self::Page, Self::Screen, Self::Identify, Self::Group, Self::Alias];
    pub const CAMPAIGN: [Self; 8] = [
        Self::Impression,
        Self::Click,
        Self::Send,
        Self::Open,
        Self::Bounce,
        Self::Unsubscribe,
        Self::Conversion,
        Self::Spend,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Page => "page",
            Self::Screen => "screen",
            Self::Identify => "identify",
            Self::Group => "group",
            Self::Alias => "alias",
            Self::Impression => "impression",
            Self::Click => "click",
            Self::Send => "send",
            Self::Open => "open",
            Self::Bounce => "bounce",
            Self::Unsubscribe => "unsubscribe",
            Self::Conversion => "conversion",
            Self::Spend => "spend",
            Self::Integration => "integration",
        }
    }

    #[must_use]
    pub fn behavior_from(text: &str) -> Option<Self> {
        Self::BEHAVIOR.into_iter().find(|kind| kind.as_str() == text)
    }

    #[must_use]
    pub fn campaign_from(text: &str) -> Option<Self> {
        Self::CAMPAIGN.into_iter().find(|kind| kind.as_str() == text)
    }

    #[must_use]
    pub fn source(self) -> Source {
        match self {
            Self::Track | Self::Page | Self::Screen | Self::Identify | Self::Group | Self::Alias => Source::Behavior,
            Self::Integration => Source::Integration,
            _ => Source::Campaign,
        }
    }

    /// Whether metric definitions name such an event by its own name (`Order Completed`) and not by its kind (`page`).
    #[must_use]
    pub fn is_named(self) -> bool {
        matches!(self, Self::Track | Self::Integration)
    }
}
