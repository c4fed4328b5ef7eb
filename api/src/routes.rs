//! The routes, one file a family, and the server around them.

pub mod audit;
pub mod catalogue;
pub mod definitions;
pub mod events;
pub mod health;
pub mod keys;
pub mod live;
pub mod live_sse;
pub mod live_ws;
pub mod metric_query;
pub mod openapi;
pub mod request_id;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use neonhub_schemas::over_limit::OverLimit;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::auth::{LeftOfQuota, over_limit};
use crate::config::Origins;
use crate::problem::Problem;
use crate::state::ApiState;

/// How long requests may still run after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(10);

fn documented() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(openapi::Document::openapi())
        .routes(routes!(catalogue::list_metrics))
        .routes(routes!(definitions::put_definition, definitions::get_definition, definitions::delete_definition))
        .routes(routes!(metric_query::query_metrics))
        .routes(routes!(events::query_events))
        .routes(routes!(keys::create_key, keys::list_keys))
        .routes(routes!(keys::rotate_key))
        .routes(routes!(keys::revoke_key))
        .routes(routes!(audit::audit_log))
        .routes(routes!(live_sse::live_metrics))
        .routes(routes!(live_ws::live_socket))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(openapi::openapi_json))
}

/// Every route, ready to serve.
pub fn router(state: ApiState) -> Router {
    let (router, document) = documented().split_for_parts();
    let document = openapi::finish(document);
    let _first_router_of_this_state = state.openapi().set(document.to_string().into());
    let config = state.config();
    let body_limit = DefaultBodyLimit::max(config.body_limit);
    let cors = match &config.origins {
        Origins::None => None,
        Origins::Named(origins) => Some(cors(AllowOrigin::list(origins.clone()))),
        Origins::Any => Some(cors(AllowOrigin::any())),
    };
    let docs = SwaggerUi::new("/docs").config(utoipa_swagger_ui::Config::from("/openapi.json"));
    let docs = Router::from(docs).layer(middleware::from_fn(within_limit));
    let router = router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(state.clone(), observe))
        .layer(body_limit)
        .with_state(state)
        .merge(docs)
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::custom(panicked));
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.layer(middleware::from_fn(request_id::identify))
}

fn cors(origins: AllowOrigin) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::PUT, Method::POST, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CACHE_CONTROL,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([
            header::AGE,
            header::ETAG,
            header::LINK,
            header::RETRY_AFTER,
            HeaderName::from_static("ratelimit"),
            HeaderName::from_static("ratelimit-policy"),
            request_id::REQUEST_ID,
        ])
        .max_age(Duration::from_secs(3_600))
}

async fn not_found(request: Request) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no {}: see /docs", request.uri().path()))
}

async fn method_not_allowed(request: Request) -> Problem {
    let detail = format!("{} does not take {}", request.uri().path(), request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::internal(&"a handler panicked").into_response()
}

/// Answers whoever is over the limit of addresses.
async fn within_limit(request: Request, next: Next) -> Response {
    match request.extensions().get::<OverLimit>() {
        Some(over) => over_limit(over).into_response(),
        None => next.run(request).await,
    }
}

async fn observe(State(state): State<ApiState>, mut request: Request, next: Next) -> Response {
    // A method may be any word: only those that there are become labels.
    let method = match *request.method() {
        Method::GET | Method::PUT | Method::POST | Method::DELETE | Method::HEAD | Method::OPTIONS => {
            request.method().as_str().to_owned()
        }
        _ => "other".to_owned(),
    };
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let begun = Instant::now();
    let left = LeftOfQuota::default();
    request.extensions_mut().insert(left.clone());
    let mut response = within_limit(request, next).await;
    left.write_headers(response.headers_mut());
    let telemetry = state.telemetry();
    let status = response.status();
    telemetry.requests.with_label_values(&[method.as_str(), &route, status.as_str()]).inc();
    telemetry.request_seconds.with_label_values(&[method.as_str(), &route]).observe(begun.elapsed().as_secs_f64());
    response
}

/// Resolves when a server is to accept no more.
pub type ToldToStop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Lets `server` serve every route. It is handed in, since what it may take of the machine is the process's affair; it
/// returns when it was told to stop and has answered every request under way. After `shutdown` no new request is taken,
/// live streams end, and running requests get ten seconds.
pub async fn serve<Serving>(
    state: ApiState,
    shutdown: impl Future<Output = ()> + Send + 'static,
    server: impl FnOnce(Router, ToldToStop) -> Serving,
) where
    Serving: Future<Output = ()>,
{
    let reconciling = state.clone();
    let reconciling = tokio::spawn(async move { reconciling.keep_reconciled().await });
    let told = state.clone();
    let told_to_stop = async move {
        shutdown.await;
        told.stop();
    };
    let serving = server(router(state.clone()), Box::pin(told_to_stop));
    let draining = state.clone();
    let drained = async move {
        draining.stopped().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = serving => {}
        () = drained => {
            tracing::warn!("requests still ran ten seconds after the server was told to stop; they were cut off");
        }
    }
    state.stop();
    reconciling.abort();
    let hub = state.hub().clone();
    if tokio::task::spawn_blocking(move || hub.stop()).await.is_err() {
        tracing::error!("the live hub could not be stopped");
    }
}
