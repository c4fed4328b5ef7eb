//! The routes, each registered once for axum and for the OpenAPI document.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use utoipa::OpenApi;
use utoipa::openapi::path::{HttpMethod, Operation, Paths};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use neonhub_schemas::Kind;
use neonhub_schemas::over_limit::OverLimit;
use serde_json::json;

use super::answer::Accepted;
use super::door::{Door, TRACKING_PATHS};
use super::problem::{EventProblems, Problem};
use super::quota::write_over_limit;
use super::request_id::{REQUEST_ID, request_id};
use super::state::IngestState;
use super::{health, intake, pixel};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "NeonHub ingest",
        description = "Segment-compatible tracking, campaign and integration events. 200 means: on the log, durably."
    ),
    components(schemas(Problem))
)]
struct Document;

/// The whole face of this crate.
pub fn router(state: IngestState) -> Router {
    let (router, document) = documented().split_for_parts();
    // As bytes: handlers are cloned for every connection, and the document is two megabytes of small strings.
    let document = Bytes::from(document.to_json().unwrap_or_default());
    let answer = move |State(state): State<IngestState>, request: Request| async move {
        match request.extensions().get::<OverLimit>() {
            Some(over) => with_id(&state, &request, Problem::over_limit(over)),
            None => ([(CONTENT_TYPE, "application/json")], document).into_response(),
        }
    };
    router
        .route("/openapi.json", axum::routing::get(answer))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(cors(&state))
        .with_state(state)
}

/// The OpenAPI document, as served at `/openapi.json`.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

fn documented() -> OpenApiRouter<IngestState> {
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_default();
    let basic = HttpBuilder::new().scheme(HttpAuthScheme::Basic).description(Some("the write key as user")).build();
    components.security_schemes.insert("write_key".to_owned(), SecurityScheme::Http(basic));
    let mut router = OpenApiRouter::with_openapi(document);
    let (schemas, templates, _) = routes!(track);
    let template = templates.get_path_operation("/v1/track", HttpMethod::Post).cloned().unwrap_or_default();
    for (path, door) in TRACKING_PATHS {
        let mut paths = Paths::new();
        paths.add_path_operation(path, vec![HttpMethod::Post], tracking_operation(&template, path, &door));
        let handler = post(move |State(state): State<IngestState>, request: Request| {
            intake::answer(state, door.clone(), request)
        });
        router = router.routes((schemas.clone(), paths, handler));
    }
    router
        .routes(routes!(campaign_events))
        .routes(routes!(integration_events))
        .routes(routes!(integration_webhook))
        .routes(routes!(pixel_image))
        .routes(routes!(pixel_by_kind))
        .routes(routes!(rudderstack_pixel))
        .routes(routes!(sdk_counters))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
}

fn tracking_operation(template: &Operation, path: &str, door: &Door) -> Operation {
    let mut operation = template.clone();
    operation.operation_id = Some(path.trim_start_matches("/v1/").trim_start_matches('/').replace("/v1/", "_"));
    operation.summary = Some(match door {
        Door::Batch => "Behaviour events in a batch, each with its type".to_owned(),
        Door::Import => "Historical behaviour events in a batch; timestamps are taken as given".to_owned(),
        call => format!("One {} event", call.label()),
    });
    let body = operation.request_body.as_mut().and_then(|body| body.content.get_mut("application/json"));
    if let Some(body) = body {
        body.example = Some(example(door));
    }
    operation
}

/// A body that the path takes.
fn example(door: &Door) -> serde_json::Value {
    let track = json!({"event": "Order Completed", "userId": "u-1", "properties": {"revenue": 19.99}});
    let page =
        json!({"type": "page", "anonymousId": "visitor-1", "name": "Pricing", "properties": {"path": "/pricing"}});
    match door {
        Door::Call(Kind::Identify) => json!({"userId": "u-1", "traits": {"plan": "pro"}}),
        Door::Call(Kind::Page) => {
            json!({"anonymousId": "visitor-1", "name": "Pricing", "properties": {"path": "/pricing"}})
        }
        Door::Call(Kind::Screen) => json!({"anonymousId": "visitor-1", "name": "Checkout"}),
        Door::Call(Kind::Group) => json!({"userId": "u-1", "groupId": "company-1", "traits": {"seats": 5}}),
        Door::Call(Kind::Alias) => json!({"previousId": "visitor-1", "userId": "u-1"}),
        Door::Batch => json!({"batch": [page, {"type": "track", "userId": "u-1", "event": "Order Completed"}]}),
        Door::Import => json!({"batch": [{"type": "page", "userId": "u-1", "timestamp": "2025-03-01T10:00:00Z"}]}),
        _ => track,
    }
}

/// The template of all tracking calls; the table of paths names them.
#[utoipa::path(
    post, path = "/v1/track", tag = "tracking",
    request_body(
        content = serde_json::Value, content_type = "application/json",
        description = "As in Segment's HTTP API; any content type is read as JSON, in gzip, deflate, br or zstd",
        example = json!({"event": "Order Completed", "userId": "u-1", "properties": {"revenue": 19.99}})
    ),
    params(("writeKey" = Option<String>, Query, description = "the write key, unless it is in the head or body")),
    responses((status = 200, description = "every accepted event is on the log", body = Accepted), EventProblems),
    security(("write_key" = []), ())
)]
async fn track(State(state): State<IngestState>, request: Request) -> Response {
    intake::answer(state, Door::Call(neonhub_schemas::Kind::Track), request).await
}

/// Campaign events: one, an array, or a batch
#[utoipa::path(
    post, path = "/v1/campaigns/events", tag = "campaigns",
    request_body(
        content = serde_json::Value, content_type = "application/json",
        description = "type is impression, click, send, open, bounce, unsubscribe, conversion or spend",
        example = json!({"type": "click", "campaign": "spring", "anonymousId": "visitor-1", "policy": "bts"})
    ),
    params(("writeKey" = Option<String>, Query, description = "the write key, unless it is in the head or body")),
    responses((status = 200, description = "every accepted event is on the log", body = Accepted), EventProblems),
    security(("write_key" = []), ())
)]
async fn campaign_events(State(state): State<IngestState>, request: Request) -> Response {
    intake::answer(state, Door::Campaign, request).await
}

/// Events of a connected platform: one, an array, or a batch
#[utoipa::path(
    post, path = "/v1/integrations/{platform}/events", tag = "integrations",
    request_body(
        content = serde_json::Value, content_type = "application/json",
        example = json!({"type": "invoice.paid", "payload": {"id": "in_1", "amount": 500}})
    ),
    params(
        ("platform" = String, Path, description = "1 to 64 of a-z, 0-9, - and _, in any case"),
        ("writeKey" = Option<String>, Query, description = "the write key, unless it is in the head or body")
    ),
    responses(
        (status = 200, description = "every accepted event is on the log", body = Accepted),
        (status = 404, description = "no platform's name", body = Problem, content_type = "application/problem+json"),
        EventProblems
    ),
    security(("write_key" = []), ())
)]
async fn integration_events(
    State(state): State<IngestState>,
    Path(platform): Path<String>,
    request: Request,
) -> Response {
    match platform_name(&platform) {
        Ok(platform) => intake::answer(state, Door::Integration { platform }, request).await,
        Err(problem) => with_id(&state, &request, *problem),
    }
}

/// A connected platform's webhook, signed as in Standard Webhooks 1.0.0
#[utoipa::path(
    post, path = "/v1/integrations/{platform}/webhook", tag = "integrations",
    request_body(
        content = serde_json::Value, content_type = "application/json",
        description = "one event; without a `data` object the whole body is the payload",
        example = json!({"type": "invoice.paid", "timestamp": "2026-03-01T10:00:00Z", "data": {"id": "in_1"}})
    ),
    params(
        ("platform" = String, Path, description = "1 to 64 of a-z, 0-9, - and _, in any case"),
        ("webhook-id" = String, Header, description = "becomes the event's messageId"),
        ("webhook-timestamp" = i64, Header, description = "Unix seconds, at most 5 minutes from now"),
        ("webhook-signature" = String, Header, description = "`v1,` and base64 of HMAC-SHA256; one or more, by spaces")
    ),
    responses(
        (status = 200, description = "the event is on the log", body = Accepted),
        EventProblems,
        (status = 401, description = "no secret known for the platform has made the signature, or not now",
            body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "no platform's name", body = Problem, content_type = "application/problem+json")
    ),
    security(())
)]
async fn integration_webhook(
    State(state): State<IngestState>,
    Path(platform): Path<String>,
    request: Request,
) -> Response {
    match platform_name(&platform) {
        Ok(platform) => intake::answer(state, Door::Webhook { platform }, request).await,
        Err(problem) => with_id(&state, &request, *problem),
    }
}

/// In lower case, however the path spells it: `LinkedIn` is `linkedin`.
fn platform_name(stated: &str) -> Result<String, Box<Problem>> {
    let name = stated.to_ascii_lowercase();
    if neonhub_schemas::ids::is_workspace_name(&name) {
        return Ok(name);
    }
    let detail = "a platform is 1 to 64 of a-z, 0-9, - and _, in any case";
    Err(Box::new(Problem::new(StatusCode::NOT_FOUND, "unknown_platform", detail)))
}

/// One event by GET; any further parameter is a property
#[utoipa::path(
    get, path = pixel::IMAGE_PATH, tag = "pixel",
    params(
        ("writeKey" = Option<String>, Query, description = "the write key"),
        ("type" = Option<String>, Query, description = "a behaviour call or a campaign event; track with an event, else page",
            example = "open"),
        ("event" = Option<String>, Query, description = "the track event's name"),
        ("campaign" = Option<String>, Query, description = "the campaign, for campaign events", example = "spring"),
        ("userId" = Option<String>, Query, description = "the user"),
        ("anonymousId" = Option<String>, Query, description = "the visitor", example = "visitor-1"),
        ("data" = Option<String>, Query, description = "the whole event instead: base64 of JSON, as in Segment's pixel API")
    ),
    responses((status = 200, description = "a transparent dot", content_type = "image/gif", body = Vec<u8>), EventProblems)
)]
async fn pixel_image(State(state): State<IngestState>, request: Request) -> Response {
    intake::answer(state, Door::Pixel, request).await
}

/// One event by GET, its kind in the path
#[utoipa::path(
    get, path = "/v1/pixel/{kind}", tag = "pixel",
    params(
        ("kind" = String, Path, description = "a behaviour call or a campaign event", example = "open"),
        ("writeKey" = Option<String>, Query, description = "the write key"),
        ("campaign" = Option<String>, Query, description = "the campaign, for campaign events", example = "spring"),
        ("userId" = Option<String>, Query, description = "the user"),
        ("anonymousId" = Option<String>, Query, description = "the visitor", example = "visitor-1")
    ),
    responses((status = 200, description = "a transparent dot", content_type = "image/gif", body = Vec<u8>), EventProblems)
)]
async fn pixel_by_kind(State(state): State<IngestState>, request: Request) -> Response {
    intake::answer(state, Door::Pixel, request).await
}

/// One event by GET, at RudderStack's path
#[utoipa::path(
    get, path = "/pixel/v1/{kind}", tag = "pixel",
    params(
        ("kind" = String, Path, description = "a behaviour call or a campaign event", example = "open"),
        ("writeKey" = Option<String>, Query, description = "the write key"),
        ("campaign" = Option<String>, Query, description = "the campaign, for campaign events", example = "spring"),
        ("userId" = Option<String>, Query, description = "the user"),
        ("anonymousId" = Option<String>, Query, description = "the visitor", example = "visitor-1")
    ),
    responses((status = 200, description = "a transparent dot", content_type = "image/gif", body = Vec<u8>), EventProblems)
)]
async fn rudderstack_pixel(State(state): State<IngestState>, request: Request) -> Response {
    intake::answer(state, Door::Pixel, request).await
}

/// An SDK's counters of itself, which analytics.js sends beside the events: thrown away unread
#[utoipa::path(post, path = "/v1/m", tag = "tracking", responses((status = 204, description = "thrown away")))]
async fn sdk_counters(State(state): State<IngestState>, request: Request) -> Response {
    match request.extensions().get::<OverLimit>() {
        Some(over) => with_id(&state, &request, Problem::over_limit(over)),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn no_route(State(state): State<IngestState>, uri: Uri, request: Request) -> Response {
    let detail = format!("there is nothing at {}; see /openapi.json", crate::accept::shortened(uri.path()));
    with_id(&state, &request, Problem::new(StatusCode::NOT_FOUND, "no_route", detail))
}

async fn wrong_method(State(state): State<IngestState>, method: Method, request: Request) -> Response {
    let detail = format!("{method} is not for this path; see /openapi.json");
    with_id(&state, &request, Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", detail))
}

fn with_id(state: &IngestState, request: &Request, problem: Problem) -> Response {
    let over = request.extensions().get::<OverLimit>();
    let problem = over.map_or(problem, Problem::over_limit);
    let id = request_id(state, request.headers());
    state.metrics().request("none", StatusCode::from_u16(problem.status).unwrap_or_default(), Duration::ZERO);
    let request_id = String::from_utf8_lossy(id.as_bytes()).into_owned();
    let mut response = Problem { request_id, ..problem }.into_response();
    response.headers_mut().insert(REQUEST_ID, id);
    if let Some(over) = over {
        write_over_limit(over, response.headers_mut());
    }
    response
}

/// Browsers' SDKs send from anywhere. The origin is mirrored, because a beacon sends with credentials, and for such a
/// request `*` is not allowed; no cookie is ever read, so that gives nothing away.
fn cors(state: &IngestState) -> CorsLayer {
    let origins = state.allowed_origins();
    let origin = if origins.is_empty() { AllowOrigin::mirror_request() } else { AllowOrigin::list(origins.to_vec()) };
    let exposed = ["retry-after", "ratelimit", "ratelimit-policy"].map(HeaderName::from_static);
    CorsLayer::new()
        .allow_origin(origin)
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(exposed.into_iter().chain([REQUEST_ID]).collect::<Vec<_>>())
        .max_age(Duration::from_secs(86_400))
}
