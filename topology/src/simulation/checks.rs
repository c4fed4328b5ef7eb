//! What must hold when everything is done.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use neonhub_processors::engine::{Outputs, Stage};
use neonhub_processors::landing::{EventRow, WindowRow};
use neonhub_processors::refine::{Refine, RefineConfig};
use neonhub_schemas::codec::header;
use neonhub_schemas::control::Activation;
use neonhub_schemas::event::{Envelope, Kind, Source};
use neonhub_schemas::record::{Record, TopicPartition};
use neonhub_schemas::sketch::HyperLogLog;
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::Aggregate;

use super::event_time::OUT_OF_ORDERNESS_MS;
use super::oracle::{Cell, Oracle, Place, without_dimensions};
use super::tables::Stored;
use super::traces::trace_of;
use super::traffic::Posted;
use super::world::World;

type Identity = (Topic, &'static str, String, String);
/// Source, partition, offset.
type Spot = (i8, u32, u64);

const SESSION_GAP_MS: i64 = 30 * 60_000;
/// How long after its last event came a session may go on: the dedup window.
const SESSION_KEPT_MS: i64 = 60 * 60_000;

/// What was posted, and the session that refine put it into.
struct Refined<'a> {
    posted: &'a Posted,
    session_id: String,
}

macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

pub fn check(world: &World) -> Result<(), String> {
    let stored = &*world.stored.lock().map_err(|error| error.to_string())?;
    ensure!(stored.violations.is_empty(), "{:?}", stored.violations);
    let refined = each_message_is_refined_once(world)?;
    events_are_landed_once(stored, &refined)?;
    if world.settings.has_traces {
        landings_are_told_of(world, stored)?;
    }
    dead_letters_are_those_expected(world, stored, &refined)?;
    users_are_those_of_an_untroubled_run(world)?;
    sessions_are_those_of_a_recount(world, &refined)?;
    windows_become_final(world)?;
    let mut oracle = Oracle::new(world.settings.zone);
    for Refined { posted, session_id } in refined.values() {
        oracle.count_built_in(posted);
        oracle.count_session(posted, session_id);
    }
    let ranges = definitions_take_effect_in_time(world, stored)?;
    count_definitions(world, &refined, &ranges, &mut oracle);
    windows_are_exact(world, stored, oracle.cells)
}

fn number_of(source: Source) -> i8 {
    match source {
        Source::Behavior => 1,
        Source::Campaign => 2,
        Source::Integration => 3,
    }
}

fn each_message_is_refined_once(world: &World) -> Result<BTreeMap<Spot, Refined<'_>>, String> {
    let mut expected: BTreeMap<Identity, Vec<&Posted>> = BTreeMap::new();
    for posted in &world.traffic.counted {
        expected.entry(posted.identity()).or_default().push(posted);
    }
    let mut refined = BTreeMap::new();
    for record in &world.observer.events {
        let source = Source::of_topic(record.topic).ok_or("a topic of no source")?;
        let message_id = record.headers.get(header::MESSAGE_ID).ok_or("an event without a message id")?;
        let key = String::from_utf8_lossy(&record.key).into_owned();
        let (workspace, actor) = key.split_once('|').ok_or_else(|| format!("key {key}"))?;
        let workspace = if workspace == "acme" { "acme" } else { "globex" };
        let message_id = String::from_utf8_lossy(message_id).into_owned();
        let identity = (source.raw_topic(), workspace, actor.to_owned(), message_id);
        let posted = expected.get_mut(&identity).and_then(Vec::pop);
        let posted = posted.ok_or_else(|| format!("{identity:?} is refined once too often"))?;
        let session = record.headers.get(header::SESSION).map_or(&[][..], |session| session);
        let session = String::from_utf8_lossy(session);
        let session_id = session.rsplit_once('@').map_or("", |(id, _)| id).to_owned();
        ensure!(session_id.is_empty() == (source != Source::Behavior), "session {session} of {posted:?}");
        refined.insert((number_of(source), record.partition, record.offset), Refined { posted, session_id });
    }
    let lost: Vec<_> =
        expected.into_iter().filter(|(_, left)| !left.is_empty()).map(|(identity, _)| identity).collect();
    ensure!(lost.is_empty(), "never refined: {lost:?}");
    Ok(refined)
}

fn events_are_landed_once(stored: &Stored, refined: &BTreeMap<Spot, Refined<'_>>) -> Result<(), String> {
    let mut landed = BTreeSet::new();
    for row in stored.events() {
        let spot = (row.source, row.partition, row.offset);
        ensure!(landed.insert(spot), "{spot:?} is landed twice");
        let Refined { posted, session_id } =
            refined.get(&spot).ok_or_else(|| format!("{spot:?} is landed and was never there"))?;
        ensure!(is_row_of(&row, posted) && row.session_id == *session_id, "{row:?} is landed for {posted:?}");
    }
    let mut due = refined.iter().filter(|(_, event)| !event.posted.is_refused);
    let lost = due.find(|(spot, _)| !landed.contains(*spot));
    ensure!(lost.is_none(), "never landed: {:?}", lost.map(|(spot, _)| spot));
    Ok(())
}

/// Each event that has landed is told of in the trace of its message, and in no other.
fn landings_are_told_of(world: &World, stored: &Stored) -> Result<(), String> {
    let told = world.traces.landed();
    for row in stored.events() {
        let landing = (row.message_id.clone().into_owned(), trace_of(row.message_id.as_bytes()));
        ensure!(told.contains(&landing), "nobody told that {} has landed", row.message_id);
    }
    let astray = told.iter().find(|(message_id, trace_id)| trace_of(message_id.as_bytes()) != *trace_id);
    ensure!(astray.is_none(), "told of in another's trace: {astray:?}");
    Ok(())
}

/// The stage over the same records in one go, with no crash and no restore, gives every event the same user.
fn users_are_those_of_an_untroubled_run(world: &World) -> Result<(), String> {
    let stage = Refine::new(RefineConfig::default());
    let user_of = |record: Option<&Bytes>| -> Result<Option<String>, String> {
        let event = Envelope::decode(record.ok_or("an event without a value")?).map_err(|error| error.to_string())?;
        Ok(event.user_id.map(Cow::into_owned))
    };
    for (partition, records) in &world.observer.raw_behavior {
        let place = TopicPartition { topic: Topic::RawBehavior, partition: *partition };
        let mut task = stage.open(place, None, None).map_err(|error| error.to_string())?;
        let mut out = Outputs::default();
        records.iter().for_each(|record| stage.process(&mut task, record, 0, &mut out));
        let of_partition = |record: &&Record| record.topic == Topic::EventsBehavior && record.partition == *partition;
        let mut found = world.observer.events.iter().filter(of_partition);
        for expected in out.records.iter().filter(|record| record.topic == Topic::EventsBehavior) {
            let found = found.next().ok_or("an event is missing")?;
            let same_message = expected.headers.get(header::MESSAGE_ID) == found.headers.get(header::MESSAGE_ID);
            ensure!(same_message && expected.key == found.key, "{:?} instead of {:?}", found.key, expected.key);
            let (expected, found) = (user_of(expected.value.as_ref())?, user_of(found.value.as_ref())?);
            ensure!(expected == found, "user {found:?} instead of {expected:?}");
        }
    }
    Ok(())
}

/// The newest session of an actor.
struct Visit<'a> {
    id: &'a str,
    first_ms: i64,
    last_ms: i64,
    came_ms: i64,
}

/// In the order of arrival: who comes within half an hour of the newest session's events goes on with it, unless it was
/// forgotten; who comes after it begins the next, and who comes from before it has one of its own.
fn sessions_are_those_of_a_recount(world: &World, refined: &BTreeMap<Spot, Refined<'_>>) -> Result<(), String> {
    let mut newest: BTreeMap<(u32, &Bytes), Visit<'_>> = BTreeMap::new();
    // A session is named after the message that began it, which may come again when it is not remembered any more.
    let mut known = BTreeMap::new();
    let mut begins = |id, posted: &Posted| {
        let by = posted.identity();
        *known.entry(id).or_insert_with(|| by.clone()) == by
    };
    for record in world.observer.events.iter().filter(|record| record.topic == Topic::EventsBehavior) {
        let spot = (number_of(Source::Behavior), record.partition, record.offset);
        let Refined { posted, session_id: id } = refined.get(&spot).ok_or("an event that was not refined")?;
        let (at_ms, came_ms) = (posted.timestamp_ms, record.timestamp_ms);
        let place = (record.partition, &record.key);
        let visit = newest.get_mut(&place).filter(|visit| came_ms - visit.came_ms <= SESSION_KEPT_MS);
        match visit {
            Some(visit) if visit.first_ms - SESSION_GAP_MS <= at_ms && at_ms <= visit.last_ms + SESSION_GAP_MS => {
                ensure!(visit.id == id, "{posted:?} is in session {id} instead of {}", visit.id);
                visit.first_ms = visit.first_ms.min(at_ms);
                visit.last_ms = visit.last_ms.max(at_ms);
                visit.came_ms = came_ms;
            }
            other => {
                ensure!(begins(id, posted), "{posted:?} goes on with session {id}");
                // What is older than the newest session is one by itself, and is not remembered.
                if other.is_none_or(|visit| at_ms >= visit.first_ms) {
                    newest.insert(place, Visit { id, first_ms: at_ms, last_ms: at_ms, came_ms });
                }
            }
        }
    }
    Ok(())
}

/// Everybody is idle: whatever ended before the newest event (less the allowance) is final, and nothing else is (the
/// observer sees to that).
fn windows_become_final(world: &World) -> Result<(), String> {
    for (key, seen) in &world.observer.newest {
        let newest_ms = world.traffic.newest_ms.get(&seen.source).copied().unwrap_or(i64::MIN);
        let is_over = seen.end_s * 1_000 + OUT_OF_ORDERNESS_MS <= newest_ms;
        ensure!(seen.is_final || !is_over, "{key} never becomes final: {seen:?}, newest event {newest_ms}");
    }
    Ok(())
}

fn is_row_of(row: &EventRow<'_>, posted: &Posted) -> bool {
    row.workspace == posted.workspace
        && row.message_id == posted.message_id
        && row.kind == posted.kind.as_str()
        && row.name == posted.name
        && row.timestamp == posted.timestamp_ms
        && row.value == posted.value
        && row.campaign == posted.campaign.unwrap_or_default()
        && posted.user_id.as_ref().is_none_or(|user_id| row.user_id == *user_id)
        && row.anonymous_id == posted.anonymous_id.as_deref().unwrap_or_default()
        && row.previous_id == posted.previous_id.as_deref().unwrap_or_default()
        && has_properties_of(row, posted)
        && !posted.is_refused
}

fn has_properties_of(row: &EventRow<'_>, posted: &Posted) -> bool {
    let money = if posted.kind == Kind::Spend { "cost" } else { "revenue" };
    let value = posted.value.map(|value| neonhub_schemas::Micros::from_raw(value).to_string());
    let texts = [
        ("channel", posted.channel),
        ("policy", posted.policy),
        ("path", posted.path),
        ("country", posted.country),
        (money, value.as_deref()),
    ];
    let expected: BTreeMap<&str, &str> = texts.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
    serde_json::from_str::<BTreeMap<&str, &str>>(&row.properties).is_ok_and(|found| found == expected)
}

fn dead_letters_are_those_expected(
    world: &World,
    stored: &Stored,
    refined: &BTreeMap<Spot, Refined<'_>>,
) -> Result<(), String> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut places = BTreeSet::new();
    for row in &stored.dead_letters {
        let is_new = places.insert((row.reason.as_str(), row.place.as_str(), row.partition, row.offset));
        ensure!(is_new, "a dead letter twice: {row:?}");
        *counts.entry(row.reason.as_str()).or_default() += 1;
    }
    let refused = refined.values().filter(|event| event.posted.is_refused).count() as u64;
    let expected = [
        ("refused_by_clickhouse", refused),
        ("undecodable", world.traffic.undecodable),
        ("wrong_topic", world.traffic.wrong_topic),
    ];
    let expected: BTreeMap<&str, u64> = expected.into_iter().filter(|(_, count)| *count > 0).collect();
    ensure!(counts == expected, "dead letters are {counts:?}, expected {expected:?}");
    Ok(())
}

/// Workspace, metric, series.
type Series = (String, String, u64);
/// By series, source and partition: from which offset to which it counts.
type Ranges = BTreeMap<(Series, i8, u32), (u64, u64)>;

fn definitions_take_effect_in_time(world: &World, stored: &Stored) -> Result<Ranges, String> {
    let mut ranges: Ranges = BTreeMap::new();
    for record in &world.observer.activations {
        let value = record.value.as_deref().ok_or("a tombstone on metrics.activations")?;
        let activation: Activation = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        let series = (activation.workspace, activation.metric, activation.series);
        let place = (series, number_of(activation.source), activation.partition);
        let next = (activation.from_offset, activation.until_offset.unwrap_or(u64::MAX));
        let known = ranges.insert(place.clone(), next);
        let goes_on = known.is_none_or(|known| known.0 == next.0 && known.1 == u64::MAX && next.1 < u64::MAX);
        ensure!(goes_on, "{place:?} counted {known:?} and then {next:?}");
    }
    for row in &stored.activations {
        let place = ((row.workspace.clone(), row.metric.clone(), row.series), row.source, row.partition);
        let known = ranges.get(&place).ok_or_else(|| format!("{place:?} is landed and was never there"))?;
        ensure!(row.from_offset == known.0, "{place:?} is landed from {}, not {}", row.from_offset, known.0);
    }
    for said in &world.sayings.said {
        let series = (said.workspace.to_owned(), said.name.to_owned(), said.revision);
        let later = world.sayings.said.iter().find(|later| {
            (later.workspace, later.name, later.revision) == (said.workspace, said.name, said.revision + 1)
        });
        let Some(variant) = said.variant else { continue };
        for ((source, partition), (committed, end)) in &said.stood {
            if *source != variant.source() {
                continue;
            }
            let range = ranges.get(&(series.clone(), number_of(*source), *partition)).copied();
            // A partition in which nothing happened between two words on a definition never heard of the first.
            let Some((from, until)) = range else {
                let passed_over = later.is_some_and(|later| later.stood[&(*source, *partition)].0 <= *end)
                    || world.log.end_offset(TopicPartition { topic: source.events_topic(), partition: *partition })
                        == Ok(*end);
                ensure!(passed_over, "{series:?} never counted in {source:?}/{partition}");
                continue;
            };
            ensure!(
                (*committed..=*end).contains(&from),
                "{series:?} counts from {from}, not within {committed}..={end}"
            );
            match later {
                None => ensure!(until == u64::MAX, "{series:?} ends at {until} for no reason"),
                Some(later) => {
                    let (committed, end) = later.stood[&(*source, *partition)];
                    let at_end = until == u64::MAX
                        && world.log.end_offset(TopicPartition { topic: source.events_topic(), partition: *partition })
                            == Ok(end);
                    ensure!(
                        at_end || (committed..=end).contains(&until),
                        "{series:?} counts until {until}, not within {committed}..={end}"
                    );
                }
            }
        }
    }
    Ok(ranges)
}

fn count_definitions(world: &World, refined: &BTreeMap<Spot, Refined<'_>>, ranges: &Ranges, oracle: &mut Oracle) {
    for said in &world.sayings.said {
        let Some(variant) = said.variant else { continue };
        let series = (said.workspace.to_owned(), said.name.to_owned(), said.revision);
        for ((source, partition, offset), Refined { posted: event, .. }) in refined {
            let range = ranges.get(&(series.clone(), *source, *partition));
            let counts = range.is_some_and(|(from, until)| (*from..*until).contains(offset));
            if !counts || event.workspace != said.workspace {
                continue;
            }
            if let Some((dimensions, gain)) = variant.gain(event) {
                oracle.add(said.workspace, said.name, said.revision, &dimensions, event.timestamp_ms, &gain);
            }
        }
    }
}

fn windows_are_exact(world: &World, stored: &Stored, expected: BTreeMap<Place, Cell>) -> Result<(), String> {
    let mut revisions: BTreeMap<(Place, &str), BTreeMap<u64, &WindowRow>> = BTreeMap::new();
    for row in &stored.windows {
        let zone = world.settings.zone.name_for(row.grain);
        ensure!(row.zone == zone, "zone {} in {row:?}", row.zone);
        let place = Place {
            workspace: row.workspace.clone(),
            metric: row.metric.clone(),
            series: row.series,
            dimensions: row.dimensions.clone(),
            grain: row.grain,
            start_s: i64::from(row.window_start),
        };
        // A batch of upserts that may have arrived is written once more: the copies replace each other.
        let copy = revisions.entry((place, row.epoch.as_str())).or_default().insert(row.revision, row);
        ensure!(copy.is_none_or(|copy| copy == row), "a revision is landed with two states: {row:?}");
    }
    let landed: usize = revisions.values().map(BTreeMap::len).sum();
    ensure!(
        landed as u64 == world.observer.upserts,
        "{} upserts were written, {landed} landed",
        world.observer.upserts
    );
    let mut merged: BTreeMap<Place, (i64, Aggregate)> = BTreeMap::new();
    let is_capped = world.settings.is_capped;
    for ((place, _), by_revision) in revisions {
        let Some(row) = by_revision.into_values().next_back() else { continue };
        let place = if is_capped { Place { dimensions: BTreeMap::new(), ..place } } else { place };
        let (end_s, whole) = merged.entry(place).or_default();
        *end_s = i64::from(row.window_end);
        whole.merge(&aggregate_of(row)?).map_err(|error| error.to_string())?;
    }
    let expected = if is_capped { without_dimensions(expected) } else { expected };
    let mut wrong = Vec::new();
    for (place, (end_s, whole)) in &merged {
        match expected.get(place) {
            None => wrong.push(format!("{place:?} is no window of any event")),
            Some(cell) if !is_equal(cell, *end_s, whole) => {
                wrong.push(format!("{place:?}: expected {cell:?}, found end {end_s} {}", brief(whole)));
            }
            Some(_) => {}
        }
    }
    let missing = expected.keys().filter(|place| !merged.contains_key(*place));
    wrong.extend(missing.map(|place| format!("{place:?} is missing")));
    ensure!(
        wrong.is_empty(),
        "{} of {} windows are wrong: {}",
        wrong.len(),
        expected.len(),
        wrong[..wrong.len().min(4)].join("\n  ")
    );
    Ok(())
}

fn aggregate_of(row: &WindowRow) -> Result<Aggregate, String> {
    let micros = neonhub_schemas::Micros::from_raw;
    let distinct = if row.distinct.is_empty() {
        None
    } else {
        Some(Box::new(HyperLogLog::from_bytes(&row.distinct).map_err(|error| error.to_string())?))
    };
    Ok(Aggregate {
        count: row.count,
        sum: micros(row.sum),
        range: row.min.map(micros).zip(row.max.map(micros)).map(Box::new),
        distinct,
        distribution: None,
    })
}

fn is_equal(cell: &Cell, end_s: i64, whole: &Aggregate) -> bool {
    cell.end_s == end_s
        && cell.count == whole.count
        && cell.sum == whole.sum.raw()
        && cell.min == whole.min().map(neonhub_schemas::Micros::raw)
        && cell.max == whole.max().map(neonhub_schemas::Micros::raw)
        && cell.distinct.len() as u64 == whole.distinct.as_ref().map_or(0, |sketch| sketch.estimate())
}

fn brief(whole: &Aggregate) -> String {
    let distinct = whole.distinct.as_ref().map_or(0, |sketch| sketch.estimate());
    format!("count {} sum {} range {:?} distinct {distinct}", whole.count, whole.sum, whole.range)
}
