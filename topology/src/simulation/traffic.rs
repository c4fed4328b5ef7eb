//! Pure: no I/O, no clock, no async.
//!
//! Events as people and campaigns would post them: out of order, late by a second or a year, repeated, a few of them
//! hot, a few of them poison.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use neonhub_ingest::Limits;
use neonhub_ingest::accept::{Route, Sender, accept};
use neonhub_schemas::codec::header;
use neonhub_schemas::event::{Envelope, Kind, Source};
use neonhub_schemas::record::{Headers, NewRecord};
use neonhub_schemas::{Micros, Topic};

use super::rng::Rng;
use super::tables::REFUSED;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A retry that comes sooner than this is dropped by anyone's reckoning …
const SURELY_REMEMBERED: i64 = 55 * MINUTE;
/// … and one that comes later than this is another event by anyone's reckoning (the seen-set's buckets are coarse).
const SURELY_FORGOTTEN: i64 = 75 * MINUTE;

/// An event that must be counted, once.
#[derive(Clone, Debug)]
pub struct Posted {
    pub workspace: &'static str,
    pub kind: Kind,
    pub name: String,
    pub message_id: String,
    pub user_id: Option<String>,
    pub anonymous_id: Option<String>,
    pub previous_id: Option<String>,
    /// As stated, or as refine finds it in the context.
    pub campaign: Option<&'static str>,
    /// Behaviour says its campaign in one of these ways.
    pub campaign_by_utm: bool,
    pub channel: Option<&'static str>,
    pub policy: Option<&'static str>,
    pub path: Option<&'static str>,
    pub country: Option<&'static str>,
    pub value: Option<i128>,
    pub is_refused: bool,
    pub timestamp_ms: i64,
    pub received_ms: i64,
}

impl Posted {
    pub fn actor(&self) -> &str {
        let previous = if self.kind == Kind::Alias { self.previous_id.as_deref() } else { None };
        previous.or(self.anonymous_id.as_deref()).or(self.user_id.as_deref()).unwrap_or(&self.message_id)
    }

    /// What makes it one and the same message.
    pub fn identity(&self) -> (Topic, &'static str, String, String) {
        (self.kind.source().raw_topic(), self.workspace, self.actor().to_owned(), self.message_id.clone())
    }

    /// As an SDK or a campaign tool writes it.
    fn to_json(&self) -> String {
        let is_campaign = Kind::CAMPAIGN.contains(&self.kind);
        let mut properties = Vec::new();
        let texts =
            [("channel", self.channel), ("policy", self.policy), ("path", self.path), ("country", self.country)];
        for (name, value) in texts {
            properties.extend(value.map(|value| format!("\"{name}\":\"{value}\"")));
        }
        let money = if self.kind == Kind::Spend { "cost" } else { "revenue" };
        properties.extend(self.value.map(|value| format!("\"{money}\":\"{}\"", Micros::from_raw(value))));
        if self.is_refused {
            properties.push(REFUSED.to_owned());
        }
        let object = if self.kind == Kind::Identify { "traits" } else { "properties" };
        let mut members = vec![
            format!("\"type\":\"{}\"", self.kind.as_str()),
            format!("\"messageId\":\"{}\"", self.message_id),
            format!("\"timestamp\":{}", self.timestamp_ms),
            format!("\"{object}\":{{{}}}", properties.join(",")),
        ];
        if self.kind == Kind::Track {
            members.push(format!("\"event\":\"{}\"", self.name));
        }
        let ids = [("userId", &self.user_id), ("anonymousId", &self.anonymous_id), ("previousId", &self.previous_id)];
        for (name, id) in ids {
            members.extend(id.as_ref().map(|id| format!("\"{name}\":\"{id}\"")));
        }
        members.extend(self.campaign.map(|name| match (is_campaign, self.campaign_by_utm) {
            (true, _) => format!("\"campaign\":\"{name}\""),
            (_, true) => format!("\"context\":{{\"page\":{{\"search\":\"?utm_source=x&utm_campaign={name}\"}}}}"),
            (_, false) => format!("\"context\":{{\"campaign\":{{\"name\":\"{name}\"}}}}"),
        }));
        format!("{{{}}}", members.join(","))
    }
}

/// One request: events of a workspace that came by the same door.
#[derive(Clone, Debug)]
pub struct Post {
    workspace: &'static str,
    source: Source,
    pub events: Vec<Posted>,
    /// Of no use to anybody: straight to the log.
    poison: Vec<NewRecord>,
}

impl Post {
    /// What ingest makes of it.
    pub fn accept(&self, received_ms: i64) -> Result<Vec<NewRecord>, String> {
        let body = self.events.iter().map(Posted::to_json).collect::<Vec<_>>().join(",");
        let body = format!("{{\"batch\":[{body}]}}");
        let route = if self.source == Source::Campaign { Route::Campaign } else { Route::Import };
        let sender = Sender { workspace: self.workspace, received_at_ms: received_ms };
        let mut records = self.poison.clone();
        if self.events.is_empty() {
            return Ok(records);
        }
        let accepted = accept(route, body.as_bytes(), sender, &Limits::default(), &mut || 0);
        let accepted = accepted.map_err(|refusal| format!("{refusal:?}: {body}"))?;
        if let Some(rejection) = accepted.rejections.first() {
            return Err(format!("{rejection:?}: {body}"));
        }
        records.extend(accepted.events.iter().map(Envelope::to_raw_record));
        Ok(records)
    }
}

/// Makes the traffic and knows what of it counts.
pub struct Traffic {
    /// Reseeded by each turn.
    pub rng: Rng,
    made: u64,
    /// Everything posted, for retries: index into `counted`, which is what it repeats.
    pub counted: Vec<Posted>,
    /// When each was accepted, and whether it has arrived or is only made.
    accepted_ms: BTreeMap<(Topic, &'static str, String, String), (i64, bool)>,
    /// The newest event of each source.
    pub newest_ms: BTreeMap<Source, i64>,
    pub retries: u64,
    pub undecodable: u64,
    pub wrong_topic: u64,
}

impl Traffic {
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            made: 0,
            counted: Vec::new(),
            accepted_ms: BTreeMap::new(),
            newest_ms: BTreeMap::new(),
            retries: 0,
            undecodable: 0,
            wrong_topic: 0,
        }
    }

    /// A few requests that are made now.
    pub fn next_posts(&mut self, now_ms: i64) -> Vec<Post> {
        let mut posts: BTreeMap<(&'static str, Source), Post> = BTreeMap::new();
        for _ in 0..*self.rng.pick(&[1, 1, 2, 5, 12]) {
            match self.rng.below(100) {
                0 => {
                    let post =
                        Post { workspace: "acme", source: Source::Behavior, events: Vec::new(), poison: Vec::new() };
                    let poison = self.poison(now_ms);
                    posts.entry(("", Source::Behavior)).or_insert(post).poison.push(poison);
                }
                dice => {
                    let is_retry = dice <= 14 && !self.counted.is_empty();
                    let event = if is_retry { self.retry(now_ms) } else { self.fresh(now_ms) };
                    let (workspace, source) = (event.workspace, event.kind.source());
                    let post = Post { workspace, source, events: Vec::new(), poison: Vec::new() };
                    posts.entry((workspace, source)).or_insert(post).events.push(event);
                }
            }
        }
        posts.into_values().collect()
    }

    /// The log has these now: retries are told from new events by when that was.
    pub fn arrived(&mut self, post: &Post, received_ms: i64) {
        for event in &post.events {
            let known = self.accepted_ms.entry(event.identity()).or_insert((received_ms, false));
            let (accepted_ms, has_arrived) = *known;
            // What is dropped as a retry makes nobody remember it for longer.
            if !has_arrived || received_ms - accepted_ms > SURELY_FORGOTTEN {
                *known = (received_ms, true);
            }
        }
    }

    fn fresh(&mut self, now_ms: i64) -> Posted {
        let posted = self.make(now_ms);
        let newest_ms = self.newest_ms.entry(posted.kind.source()).or_insert(i64::MIN);
        *newest_ms = posted.timestamp_ms.max(*newest_ms);
        self.count(posted)
    }

    fn count(&mut self, posted: Posted) -> Posted {
        self.accepted_ms.insert(posted.identity(), (posted.received_ms, false));
        self.counted.push(posted.clone());
        posted
    }

    fn retry(&mut self, now_ms: i64) -> Posted {
        let mut again = self.rng.pick(&self.counted).clone();
        let since_ms = now_ms - self.accepted_ms[&again.identity()].0;
        again.received_ms = now_ms;
        if since_ms < SURELY_REMEMBERED {
            self.retries += 1;
            again
        } else if since_ms > SURELY_FORGOTTEN {
            self.count(again)
        } else {
            self.fresh(now_ms)
        }
    }

    fn poison(&mut self, received_ms: i64) -> NewRecord {
        let (value, key) = if self.rng.chance(500) {
            self.undecodable += 1;
            (Bytes::from_static(b"{\"schema\":1,\xff"), format!("acme|poison-{}", self.made))
        } else {
            self.wrong_topic += 1;
            let stray = Envelope {
                workspace: Cow::Borrowed("acme"),
                message_id: Cow::Borrowed("stray"),
                kind: Kind::Click,
                name: Cow::Borrowed("click"),
                anonymous_id: Some(Cow::Borrowed("stray")),
                campaign: Some(Cow::Borrowed("men")),
                timestamp_ms: received_ms,
                received_at_ms: received_ms,
                properties: Cow::Borrowed("{}"),
                context: Cow::Borrowed("{}"),
                user_id: None,
                group_id: None,
                previous_id: None,
                session_id: None,
                platform: None,
                value: None,
            };
            (Bytes::from(stray.encode()), format!("acme|stray-{}", self.made))
        };
        self.made += 1;
        let headers = Headers::new().with(header::WORKSPACE, Bytes::from_static(b"acme"));
        let key = Bytes::from(key);
        NewRecord {
            topic: Topic::RawBehavior,
            partition: None,
            key,
            value: Some(value),
            headers,
            timestamp_ms: received_ms,
        }
    }

    fn lateness_ms(&mut self) -> i64 {
        match self.rng.below(100) {
            0..=59 => self.rng.between(0, 20 * SECOND),
            60..=79 => self.rng.between(0, 5 * MINUTE),
            80..=92 => self.rng.between(0, 3 * HOUR),
            93..=95 => self.rng.between(0, 40) * DAY,
            96 => self.rng.between(0, 365) * DAY,
            _ => -self.rng.between(0, 4 * MINUTE),
        }
    }

    fn make(&mut self, received_ms: i64) -> Posted {
        self.made += 1;
        let timestamp_ms = received_ms - self.lateness_ms();
        let rng = &mut self.rng;
        let workspace = if rng.chance(850) { "acme" } else { "globex" };
        let kinds = [
            Kind::Impression,
            Kind::Impression,
            Kind::Impression,
            Kind::Click,
            Kind::Conversion,
            Kind::Spend,
            Kind::Send,
            Kind::Page,
            Kind::Page,
            Kind::Track,
            Kind::Track,
            Kind::Identify,
            Kind::Alias,
        ];
        let kind = *rng.pick(&kinds);
        // A hot actor, and a tail.
        let person = if rng.chance(300) { 0 } else { rng.below(12) };
        let anonymous_id = Some(format!("anon-{person}"));
        let user_id = Some(format!("user-{}", person / 2));
        let campaign = *rng.pick(&["men", "women", "all"]);
        let mut posted = Posted {
            workspace,
            kind,
            name: kind.as_str().to_owned(),
            message_id: format!("m-{}", self.made),
            user_id: None,
            anonymous_id: anonymous_id.clone(),
            previous_id: None,
            campaign: None,
            campaign_by_utm: rng.chance(500),
            channel: None,
            policy: None,
            path: None,
            country: None,
            value: None,
            is_refused: rng.chance(8),
            timestamp_ms,
            received_ms,
        };
        match kind {
            Kind::Page => {
                posted.path = Some(*rng.pick(&["/", "/shop"]));
                posted.campaign = rng.chance(300).then_some(campaign);
            }
            Kind::Track => {
                posted.name = rng.pick(&["Order Completed", "Product Viewed"]).to_string();
                posted.country = rng.chance(900).then(|| *rng.pick(&["de", "fr", "np"]));
                posted.value = rng.chance(800).then(|| i128::from(rng.between(-5_000_000, 90_000_000)));
            }
            Kind::Identify => posted.user_id = user_id,
            Kind::Alias => {
                posted.previous_id = anonymous_id;
                (posted.anonymous_id, posted.user_id) = (None, user_id);
            }
            _ => {
                posted.campaign = Some(campaign);
                posted.channel = Some("web");
                posted.policy = rng.chance(900).then(|| *rng.pick(&["bts", "random"]));
                // Server-side events of nobody in particular: the message is its own actor.
                posted.anonymous_id = if rng.chance(300) { None } else { posted.anonymous_id };
                let has_value = matches!(kind, Kind::Conversion | Kind::Spend) && rng.chance(900);
                posted.value = has_value.then(|| i128::from(rng.between(0, 25_000_000)));
            }
        }
        posted
    }
}
