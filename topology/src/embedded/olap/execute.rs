//! Runs one request's statement on a connection, on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::access::User;
use super::body::DataSource;
use super::engine::Engine;
use super::exception::{Exception, INTO_OUTFILE_NOT_ALLOWED, READONLY};
use super::formats::{self, Joining};
use super::library::{Connection, Counts, Output};
use super::parameters::{RequestParameters, quoted_identifier, set_statement};
use super::reader::{self, SessionChange};
use super::reader_sessions::{ReaderSessions, SessionState};
use super::reply::{Progress, Responder};
use super::session::Sessions;
use super::settings_scope::SettingsScope;
use super::statement::{self, Effect, Statement};

/// ClickHouse's `max_query_size`: where an INSERT's own text must have ended.
const STATEMENT_PREFIX_BYTES: usize = 256 << 10;
/// Reads and settings, as ClickHouse has it for GET and HEAD.
const GET_READONLY: &str = "2";
const DEFAULT_FORMAT: &str = "TabSeparated";
const DEFAULT_INSERT_FORMAT: &str = "Values";

/// A table that comes with the request.
pub struct ExternalTable {
    pub name: String,
    pub structure: String,
    pub format: String,
    pub data: Bytes,
}

pub struct Job {
    pub request: RequestParameters,
    pub source: DataSource,
    pub external_tables: Vec<ExternalTable>,
    pub user: User,
    /// GET and HEAD may only read.
    pub reading_method: bool,
    pub marker: String,
    pub progress: Arc<Progress>,
}

enum Plan {
    Insert { sql: Bytes, format: String, first: Vec<Bytes> },
    Query { sql: Bytes, effect: Effect, format: String },
}

pub fn execute(
    engine: &Engine,
    sessions: &Arc<Sessions>,
    reader_sessions: &ReaderSessions,
    job: Job,
    mut responder: Responder,
) {
    let progress = Arc::clone(&job.progress);
    let outcome = if job.user.may_write {
        run(engine, sessions, job, &mut responder)
    } else {
        run_for_reader(engine, reader_sessions, job, &mut responder)
    };
    // Before the answer: whoever has it must not try to stop the statement.
    progress.finished.store(true, Ordering::Release);
    match outcome {
        Ok(Outcome::Complete { format, counts, body }) => responder.complete(format.as_deref(), counts, body),
        Ok(Outcome::Streamed) => responder.end(),
        Ok(Outcome::Abandoned) => tracing::debug!("a client left before the end of its result"),
        Err(exception) => responder.fail(exception),
    }
}

enum Outcome {
    Complete { format: Option<String>, counts: Counts, body: Bytes },
    Streamed,
    Abandoned,
}

fn run(
    engine: &Engine,
    sessions: &Arc<Sessions>,
    mut job: Job,
    responder: &mut Responder,
) -> Result<Outcome, Exception> {
    if job.reading_method && job.request.readonly.as_deref().is_none_or(|level| level == "0") {
        job.request.readonly = Some(GET_READONLY.to_owned());
    }
    let plan = plan(&mut job)?;
    check_readonly_session(&job, &plan)?;
    let mut lease = match &job.request.session {
        Some(choice) => Some(sessions.lease(&job.user.name, choice, engine)?),
        None => None,
    };
    let mut fresh = None;
    let connection = match lease.as_mut().and_then(|lease| lease.connection()) {
        Some(connection) => connection,
        None => fresh.insert(engine.connect()?),
    };
    if job.request.session.is_none() {
        prepare(connection, &job.request)?;
        return run_prepared(connection, job, plan, responder);
    }
    // A session keeps what its statements set, and nothing of what one request asked for.
    let keeps_database = matches!(&plan, Plan::Query { effect: Effect::Session, .. });
    let scope = SettingsScope::capture(connection, &job.request, keeps_database)?;
    let outcome = prepare(connection, &job.request).and_then(|()| run_prepared(connection, job, plan, responder));
    scope.restore(connection)?;
    outcome
}

/// On a connection that the engine itself holds to reading.
fn run_for_reader(
    engine: &Engine,
    sessions: &ReaderSessions,
    mut job: Job,
    responder: &mut Responder,
) -> Result<Outcome, Exception> {
    let user = job.user.name.clone();
    let (sql, effect, format) = match plan(&mut job)? {
        Plan::Insert { .. } => return Err(reader::no_write(&user)),
        Plan::Query { sql, effect, format } => (sql, effect, format),
    };
    if !job.external_tables.is_empty() {
        return Err(reader::no_write(&user));
    }
    job.request.settings.iter().try_for_each(|(name, _)| reader::check_setting(&user, name))?;
    let session = job.request.session.clone();
    let state = match &session {
        Some(choice) => sessions.state(&user, choice, Instant::now())?,
        None => SessionState::default(),
    };
    let mut settings = state.settings;
    if effect == Effect::Session {
        let change = reader::session_change(&user, &sql)?;
        let mut connection = engine.connect()?;
        match &change {
            SessionChange::Database(database) => {
                command(&mut connection, &format!("USE {}", quoted_identifier(database)))?;
            }
            // The engine knows whether there is such a setting and such a value.
            SessionChange::Settings(changed) => {
                if let Some(set) = set_statement(changed) {
                    command(&mut connection, &set)?;
                }
            }
        }
        if let Some(choice) = &session {
            sessions.change(&user, choice, change)?;
        }
        return Ok(Outcome::Complete { format: Some(format), counts: Counts::default(), body: Bytes::new() });
    }
    let sql = reader::checked_statement(&user, &sql, effect, engine.denied_to_readers())?;
    settings.append(&mut job.request.settings);
    let limits = reader::limits(&settings);
    settings.extend(limits);
    // The last one: nothing can be set after it.
    settings.push(("readonly".to_owned(), "1".to_owned()));
    let mut connection = engine.connect()?;
    if let Some(database) = job.request.database.take().or(state.database) {
        command(&mut connection, &format!("USE {}", quoted_identifier(&database)))?;
    }
    if let Some(set) = set_statement(&settings) {
        command(&mut connection, &set)?;
    }
    let plan = Plan::Query { sql: Bytes::from(sql), effect, format };
    run_prepared(&mut connection, job, plan, responder)
}

fn prepare(connection: &mut Connection, request: &RequestParameters) -> Result<(), Exception> {
    if let Some(database) = &request.database {
        command(connection, &format!("USE {}", quoted_identifier(database)))?;
    }
    if let Some(set) = set_statement(&request.settings) {
        command(connection, &set)?;
    }
    // The last one: it forbids further settings.
    if let (Some(readonly), None) = (&request.readonly, &request.session)
        && let Some(set) = set_statement(&[("readonly".to_owned(), readonly.clone())])
    {
        command(connection, &set)?;
    }
    Ok(())
}

pub fn command(connection: &mut Connection, sql: &str) -> Result<Output, Exception> {
    connection.query(sql.as_bytes(), "JSONCompactEachRow", &[]).map_err(|text| Exception::from_engine(&text))
}

/// Finds the statement in the `query` parameter and the body, and where its data begins.
fn plan(job: &mut Job) -> Result<Plan, Exception> {
    let query = Bytes::from(std::mem::take(&mut job.request.query));
    let asked_format = job.request.default_format.clone();
    if let Statement::InsertData { statement_end, format, data_start } = statement::split(&query)
        && (format.is_some() || asked_format.is_some())
    {
        let format = format.or(asked_format).unwrap_or_else(|| DEFAULT_INSERT_FORMAT.to_owned());
        let mut first = Vec::new();
        if data_start < query.len() && !query[data_start..].trim_ascii().is_empty() {
            first.push(query.slice(data_start..));
            first.push(Bytes::from_static(b"\n"));
        }
        return Ok(Plan::Insert { sql: query.slice(..statement_end), format, first });
    }
    let prefix = job.source.read_at_least(STATEMENT_PREFIX_BYTES)?;
    let mut text = join(&query, &prefix);
    let mut split = statement::split(&text);
    if !matches!(&split, Statement::InsertData { format: Some(_), .. }) {
        // Not an INSERT with data: all of the body is the statement.
        let rest = job.source.read_at_least(usize::MAX)?;
        if !rest.is_empty() {
            let mut whole = BytesMut::from(text);
            whole.extend_from_slice(&rest);
            text = whole.freeze();
            split = statement::split(&text);
        }
    }
    if statement::is_terminal_command(&text) {
        return Err(Exception::syntax("Syntax error: failed at position 1: not a statement"));
    }
    match split {
        Statement::Empty => Err(Exception::syntax("Empty query")),
        Statement::Nonsense(position) => {
            Err(Exception::syntax(format!("Syntax error: failed at position {}: no statement begins so", position + 1)))
        }
        Statement::Multiple(position) => Err(Exception::syntax(format!(
            "Syntax error (Multi-statements are not allowed): failed at position {position} (end of query)"
        ))),
        Statement::InsertData { statement_end, format, data_start } => Ok(Plan::Insert {
            format: format.or(asked_format).unwrap_or_else(|| DEFAULT_INSERT_FORMAT.to_owned()),
            first: if data_start < text.len() { vec![text.slice(data_start..)] } else { Vec::new() },
            sql: text.slice(..statement_end),
        }),
        Statement::Query { touches_files: true, .. } => {
            let message = "INTO OUTFILE and FROM INFILE are not allowed";
            Err(Exception::new(INTO_OUTFILE_NOT_ALLOWED, "INTO_OUTFILE_NOT_ALLOWED", message))
        }
        Statement::Query { end, effect, format, .. } => Ok(Plan::Query {
            sql: text.slice(..end),
            effect,
            format: format.or(asked_format).unwrap_or_else(|| DEFAULT_FORMAT.to_owned()),
        }),
    }
}

/// ClickHouse reads the parameter and the body as one text with a newline between.
fn join(query: &Bytes, body: &Bytes) -> Bytes {
    if query.is_empty() {
        return body.clone();
    }
    if body.is_empty() {
        return query.clone();
    }
    [query.as_ref(), b"\n", body.as_ref()].concat().into()
}

/// A session's connection cannot take the `readonly` setting, which it would never get rid of: the front refuses there
/// what the engine refuses elsewhere.
fn check_readonly_session(job: &Job, plan: &Plan) -> Result<(), Exception> {
    let readonly = job.request.readonly.as_deref().is_some_and(|level| level != "0");
    let writes = matches!(plan, Plan::Insert { .. } | Plan::Query { effect: Effect::Write, .. });
    if job.request.session.is_some() && readonly && writes {
        let message = format!("{}: Cannot execute query in readonly mode", job.user.name);
        return Err(Exception::new(READONLY, "READONLY", message));
    }
    Ok(())
}

fn run_prepared(
    connection: &mut Connection,
    mut job: Job,
    plan: Plan,
    responder: &mut Responder,
) -> Result<Outcome, Exception> {
    for table in &job.external_tables {
        let name = quoted_identifier(&table.name);
        command(
            connection,
            &format!("CREATE OR REPLACE TEMPORARY TABLE {name} ({}) ENGINE = Memory", table.structure),
        )?;
        let sql = format!("INSERT INTO {name}");
        insert_all(connection, sql.as_bytes(), &table.format, &job, [table.data.clone()], None)?;
    }
    match plan {
        Plan::Insert { sql, format, first } => {
            let mut source = std::mem::replace(&mut job.source, DataSource::empty());
            let mut counts = insert_all(connection, &sql, &format, &job, first, Some(&mut source))?;
            // ClickHouse counts the rows of an INSERT as read, too.
            counts.read_rows = counts.read_rows.max(counts.written_rows);
            counts.read_bytes = counts.read_bytes.max(counts.written_bytes);
            Ok(Outcome::Complete { format: Some(DEFAULT_FORMAT.to_owned()), counts, body: Bytes::new() })
        }
        Plan::Query { sql, effect, format } => query(connection, &job, &sql, effect, format, responder),
    }
}

/// Feeds an INSERT and finishes it, whether the client still waits or not.
/// Only a body that turns out undecodable cancels it: the block at hand is dropped, for if it landed cut off under its
/// deduplication token, the repeated insert's whole block would be taken for a duplicate.
fn insert_all(
    connection: &mut Connection,
    sql: &[u8],
    format: &str,
    job: &Job,
    first: impl IntoIterator<Item = Bytes>,
    mut source: Option<&mut DataSource>,
) -> Result<Counts, Exception> {
    let mut stream =
        connection.insert(sql, format, &job.request.parameters).map_err(|text| Exception::from_engine(&text))?;
    let mut going = first.into_iter().all(|piece| stream.append(&piece));
    while going && let Some(source) = source.as_deref_mut() {
        match source.next_piece()? {
            Some(piece) => going = stream.append(&piece),
            None => break,
        }
    }
    stream.finish().map_err(|text| Exception::from_engine(&text))
}

fn query(
    connection: &mut Connection,
    job: &Job,
    sql: &[u8],
    effect: Effect,
    format: String,
    responder: &mut Responder,
) -> Result<Outcome, Exception> {
    let engine_error = |text: String| Exception::from_engine(&text);
    let reads = matches!(effect, Effect::Select | Effect::Inspect);
    let mut marked = BytesMut::from(sql);
    if reads {
        marked.extend_from_slice(format!("\n/* {} */", job.marker).as_bytes());
        job.progress.stoppable.store(true, Ordering::Release);
    }
    let joining = formats::joining(&format);
    let whole = effect != Effect::Select
        || joining == Joining::Whole
        || job.request.wait_end_of_query
        || formats::needs_whole_result(sql, &job.request.settings);
    if whole {
        let output = connection.query(&marked, &format, &job.request.parameters).map_err(engine_error)?;
        return Ok(Outcome::Complete {
            format: Some(format),
            counts: output.counts(),
            body: Bytes::from_owner(output),
        });
    }
    let mut stream = connection.stream(&marked, &format, &job.request.parameters).map_err(engine_error)?;
    if job.progress.abandoned.load(Ordering::Acquire) {
        return Ok(Outcome::Abandoned);
    }
    let Some(first) = stream.fetch().map_err(engine_error)? else {
        return Ok(Outcome::Complete { format: Some(format), counts: Counts::default(), body: Bytes::new() });
    };
    let mut counts = first.counts();
    let first = Bytes::from_owner(first);
    let Some(second) = stream.fetch().map_err(engine_error)? else {
        return Ok(Outcome::Complete { format: Some(format), counts, body: first });
    };
    let header = first.slice(..formats::header_length(joining, &first));
    counts.add(second.counts());
    if !responder.start(Some(&format), counts) || !responder.piece(first) {
        return Ok(Outcome::Abandoned);
    }
    let mut next = Some(second);
    while let Some(output) = next {
        let piece = Bytes::from_owner(output);
        let body = if piece.starts_with(&header) { piece.slice(header.len()..) } else { piece };
        if !responder.piece(body) {
            return Ok(Outcome::Abandoned);
        }
        next = stream.fetch().map_err(engine_error)?;
    }
    Ok(Outcome::Streamed)
}
