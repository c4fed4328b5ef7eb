//! The HTTP side: routes, reading a request, and turning a reply into a response with ClickHouse's headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, ORIGIN, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::access::{Access, User};
use super::body::{DataSource, ReceivedBody};
use super::encoding::{Encoder, Encoding};
use super::engine::Engine;
use super::exception::{ACCESS_DENIED, Exception, TOO_MANY_SIMULTANEOUS_QUERIES};
use super::execute::{ExternalTable, Job, execute};
use super::multipart::{self, Part};
use super::parameters::RequestParameters;
use super::reader_sessions::ReaderSessions;
use super::reply::{Head, PieceStream, Progress, Reply, Responder, StopOnDrop};
use super::session::Sessions;
use super::{formats, statement_marker};

const DISPLAY_NAME: &str = "neonhub";
const ALLOWED_METHODS: &str = "GET, HEAD, POST, PUT, OPTIONS";

/// Everything a request needs, shared by all.
pub struct Front {
    pub engine: Arc<Engine>,
    pub sessions: Arc<Sessions>,
    pub reader_sessions: Arc<ReaderSessions>,
    pub access: Access,
    pub connections: Arc<Semaphore>,
    /// One fewer, where there are more than one, so that whoever writes is not kept waiting by readers.
    pub reader_connections: Arc<Semaphore>,
    pub waiting: Arc<Semaphore>,
    pub queue_wait: Duration,
    pub send_timeout: Duration,
    pub max_body_bytes: usize,
    pub body_budget: Arc<Semaphore>,
    pub statements: AtomicU64,
}

pub fn router(front: Arc<Front>) -> Router {
    Router::new()
        .route("/ping", any(|| async { plain(StatusCode::OK, "Ok.\n") }))
        .route("/replicas_status", any(|| async { plain(StatusCode::OK, "Ok.\n") }))
        .route("/", any(answer))
        .route("/query", any(answer))
        .fallback(|request: Request| async move {
            let path = request.uri().path();
            let text =
                format!("There is no handle {path}\n\nUse / or /ping for health checks.\nSend queries with POST.\n");
            plain(StatusCode::NOT_FOUND, text)
        })
        .with_state(front)
}

fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, "text/html; charset=UTF-8");
    response
}

/// Values that are no header values (control characters in a query id) are left out.
fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

async fn answer(State(front): State<Arc<Front>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match parts.method {
        Method::GET | Method::HEAD | Method::POST | Method::PUT => {}
        Method::OPTIONS => {
            let mut response = plain(StatusCode::NO_CONTENT, Body::empty());
            set(&mut response, ALLOW, ALLOWED_METHODS);
            return response;
        }
        _ => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Use GET to read and POST to write.\n");
            set(&mut response, ALLOW, ALLOWED_METHODS);
            return response;
        }
    }
    let number = front.statements.fetch_add(1, Ordering::Relaxed);
    let marker = statement_marker(number);
    let outcome = run_request(&front, &parts, body, &marker).await;
    let mut response = match outcome {
        Ok(response) => response,
        Err(exception) => error_response(&front, &exception),
    };
    set(&mut response, HeaderName::from_static("x-clickhouse-server-display-name"), DISPLAY_NAME);
    set(&mut response, HeaderName::from_static("x-clickhouse-timezone"), front.engine.timezone());
    response
}

fn error_response(front: &Front, exception: &Exception) -> Response {
    tracing::debug!(code = exception.code, error = %exception, "a statement failed");
    let mut response = plain(exception.status(), exception.body(front.engine.version()));
    set(&mut response, CONTENT_TYPE, "text/plain; charset=UTF-8");
    set(&mut response, HeaderName::from_static("x-clickhouse-exception-code"), &exception.code.to_string());
    response
}

async fn run_request(front: &Arc<Front>, parts: &Parts, body: Body, marker: &str) -> Result<Response, Exception> {
    let mut pairs: Vec<(String, String)> =
        form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let text_header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let early = RequestParameters::parse(pairs.clone(), &parts.headers)?;
    // Before the body is taken: nobody unknown may fill the memory.
    let user = front.access.check(&parts.headers, early.user.as_deref(), early.password.as_deref())?;
    // A page that somebody has open may post here without asking, and a reader needs no password.
    if !user.may_write && parts.headers.contains_key(ORIGIN) {
        let detail = format!("{}: Not enough privileges. Pages of other sites may not ask", user.name);
        return Err(Exception::new(ACCESS_DENIED, "ACCESS_DENIED", detail));
    }
    let content_encoding = match text_header("content-encoding").filter(|name| !name.eq_ignore_ascii_case("identity")) {
        None | Some("") => None,
        Some(name) => Some(Encoding::named(name).ok_or_else(|| {
            Exception::new(48, "NOT_IMPLEMENTED", format!("Unknown compression of the request's body: {name}"))
        })?),
    };
    let received = ReceivedBody::receive(body, front.max_body_bytes, &front.body_budget).await?;
    let mut source = received.decode(content_encoding, early.native_request, front.max_body_bytes)?;
    let mut external_tables = Vec::new();
    let mut request = early;
    if let Some(boundary) = text_header("content-type").and_then(multipart::boundary) {
        let form = multipart::parse(&source.read_at_least(usize::MAX)?, &boundary)?;
        external_tables = take_form(form, &mut pairs)?;
        request = RequestParameters::parse(pairs, &parts.headers)?;
        source = DataSource::empty();
    }
    let is_empty = request.query.is_empty() && source.is_empty();
    if is_empty && parts.method != Method::POST {
        return Ok(plain(StatusCode::OK, "Ok.\n"));
    }
    let reading_method = matches!(parts.method, Method::GET | Method::HEAD);
    dispatch(front, request, source, external_tables, user, reading_method, marker).await
}

/// Fields become parameters, files become external tables described by `<name>_structure` or `_types` and `_format`.
pub fn take_form(form: Vec<Part>, pairs: &mut Vec<(String, String)>) -> Result<Vec<ExternalTable>, Exception> {
    let mut files = Vec::new();
    for part in form {
        if part.is_file {
            files.push(part);
            continue;
        }
        let value = String::from_utf8(part.data.to_vec())
            .map_err(|_| Exception::bad_arguments(format!("the form's field '{}' is not UTF-8", part.name)))?;
        pairs.push((part.name, value));
    }
    let mut tables = Vec::new();
    for file in files {
        let mut take = |suffix: &str| {
            let name = format!("{}_{suffix}", file.name);
            let position = pairs.iter().position(|(pair, _)| *pair == name)?;
            Some(pairs.swap_remove(position).1)
        };
        let format = take("format").unwrap_or_else(|| "TabSeparated".to_owned());
        let numbered = |types: String| {
            let columns: Vec<String> =
                types.split(',').enumerate().map(|(index, kind)| format!("_{} {kind}", index + 1)).collect();
            columns.join(", ")
        };
        let structure = take("structure").or_else(|| take("types").map(numbered)).ok_or_else(|| {
            Exception::bad_arguments(format!("the external table '{}' has neither structure nor types", file.name))
        })?;
        tables.push(ExternalTable { name: file.name, structure, format, data: file.data });
    }
    Ok(tables)
}

async fn dispatch(
    front: &Arc<Front>,
    request: RequestParameters,
    source: DataSource,
    external_tables: Vec<ExternalTable>,
    user: User,
    reading_method: bool,
    marker: &str,
) -> Result<Response, Exception> {
    let busy = |what: &str| {
        let message = format!("Too many simultaneous queries: {what}");
        Exception::new(TOO_MANY_SIMULTANEOUS_QUERIES, "TOO_MANY_SIMULTANEOUS_QUERIES", message)
    };
    let place = Arc::clone(&front.waiting).try_acquire_owned().map_err(|_| busy("the queue is full"))?;
    let may_write = user.may_write;
    let both = async {
        let of_readers = match may_write {
            true => None,
            false => Some(Arc::clone(&front.reader_connections).acquire_owned().await?),
        };
        Ok::<_, AcquireError>((Arc::clone(&front.connections).acquire_owned().await?, of_readers))
    };
    let (connection, reader) = match tokio::time::timeout(front.queue_wait, both).await {
        Ok(Ok((connection, reader))) => (connection, reader.map(Arc::new)),
        Ok(Err(_)) => return Err(busy("the server is shutting down")),
        Err(_) => return Err(busy("waited too long for a connection")),
    };
    drop(place);

    let unusable =
        |error: std::io::Error| Exception::bad_arguments(format!("the response cannot be compressed: {error}"));
    let encoder = Encoder::new(request.native_response, request.encoding).map_err(unusable)?;
    let encoding = request.encoding;
    let query_id = request.query_id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let exception_tag = exception_tag();
    let (responder, reply) = Responder::new(encoder, front.engine.version(), &exception_tag, front.send_timeout);
    let progress = Arc::new(Progress::default());
    let stop = StopOnDrop {
        engine: Arc::clone(&front.engine),
        progress: Arc::clone(&progress),
        marker: marker.to_owned(),
        runtime: Handle::current(),
    };
    let job = Job { request, source, external_tables, user, reading_method, marker: marker.to_owned(), progress };
    let (engine, sessions) = (Arc::clone(&front.engine), Arc::clone(&front.sessions));
    let reader_sessions = Arc::clone(&front.reader_sessions);
    let places = (connection, reader.clone());
    tokio::task::spawn_blocking(move || {
        execute(&engine, &sessions, &reader_sessions, job, responder);
        drop(places);
    });
    let lost = || Exception::new(1002, "UNKNOWN_EXCEPTION", "The statement's thread ended without an answer");
    let (head, body) = match reply.await.map_err(|_| lost())? {
        Reply::Failed(exception) => {
            let mut response = error_response(front, &exception);
            set(&mut response, HeaderName::from_static("x-clickhouse-query-id"), &query_id);
            return Ok(response);
        }
        Reply::Complete { head, body } => (head, Body::from(until_sent(body, reader))),
        Reply::Streaming { head, pieces } => (head, Body::from_stream(PieceStream::new(pieces, stop))),
    };
    let mut response = Response::new(body);
    describe(&mut response, &head, encoding);
    set(&mut response, HeaderName::from_static("x-clickhouse-query-id"), &query_id);
    set(&mut response, HeaderName::from_static("x-clickhouse-exception-tag"), &exception_tag);
    Ok(response)
}

/// A result that is more than the system takes at once.
const LARGE: usize = 64 << 10;

/// A large result keeps its reader's place until the last of it is sent: those that do not read what they asked for would
/// otherwise pile up in memory, each as large as a statement's result may be.
fn until_sent(body: Bytes, place: Option<Arc<OwnedSemaphorePermit>>) -> Bytes {
    match place {
        Some(place) if body.len() > LARGE => Bytes::from_owner(InPlace { body, _place: place }),
        _ => body,
    }
}

struct InPlace {
    body: Bytes,
    _place: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for InPlace {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

fn describe(response: &mut Response, head: &Head, encoding: Option<Encoding>) {
    let counts = head.counts;
    let summary = format!(
        "{{\"read_rows\":\"{}\",\"read_bytes\":\"{}\",\"written_rows\":\"{}\",\"written_bytes\":\"{}\",\
         \"total_rows_to_read\":\"0\",\"result_rows\":\"{}\",\"result_bytes\":\"0\",\"elapsed_ns\":\"{}\"}}",
        counts.read_rows,
        counts.read_bytes,
        counts.written_rows,
        counts.written_bytes,
        counts.result_rows,
        head.elapsed.as_nanos()
    );
    set(response, HeaderName::from_static("x-clickhouse-summary"), &summary);
    if let Some(format) = &head.format {
        set(response, HeaderName::from_static("x-clickhouse-format"), format);
        set(response, CONTENT_TYPE, formats::content_type(format));
    }
    if let Some(encoding) = encoding {
        set(response, CONTENT_ENCODING, encoding.name());
        set(response, VARY, "Accept-Encoding");
    }
}

/// Sixteen letters that no data is likely to hold.
fn exception_tag() -> String {
    uuid::Uuid::new_v4().as_bytes().iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}
