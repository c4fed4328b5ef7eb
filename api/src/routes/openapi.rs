//! The OpenAPI document: operations come from the routes themselves, problems are declared here once.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response as AxumResponse};
use neonhub_schemas::metric::DefinitionText;
use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi as OpenApiDocument, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi};

use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "NeonHub query API",
        description = "Metrics, raw events and live windows. Every error is RFC 9457 problem+json."
    ),
    components(schemas(ProblemBody)),
    modifiers(&BearerKeys)
)]
pub struct Document;

struct BearerKeys;

impl Modify for BearerKeys {
    fn modify(&self, document: &mut OpenApiDocument) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("An API key.")).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

type Responses = BTreeMap<String, RefOr<Response>>;

fn problems(statuses: &[(u16, &str)]) -> Responses {
    let response = |about: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemBody"))).build();
        ResponseBuilder::new().description(about).content("application/problem+json", content).build()
    };
    statuses.iter().map(|(status, about)| (status.to_string(), RefOr::T(response(about)))).collect()
}

const BAD_REQUEST: (u16, &str) = (400, "something is wrong with `field`");
const UNAUTHORIZED: (u16, &str) = (401, "no API key, or an unknown one");
const FORBIDDEN: (u16, &str) = (403, "the key lacks the scope, or the token does not reach so far");
const TOO_MANY: (u16, &str) = (429, "more requests a minute than the key, token or address may make: see Retry-After");
const NOT_FOUND: (u16, &str) = (404, "there is no such thing");
const CONFLICT: (u16, &str) =
    (409, "built in, needed by a derived metric, or changed by somebody else at the same time");
const KEY_CONFLICT: (u16, &str) =
    (409, "not in force any more, too many keys, no deployment secret, or changed by somebody else at the same time");
const PRECONDITION: (u16, &str) = (412, "the definition is not the one that If-Match or If-None-Match asks for");
const SLOW_BODY: (u16, &str) = (408, "the body came too slowly");
const TOO_LARGE: (u16, &str) = (413, "the body is too large");
const MEDIA_TYPE: (u16, &str) = (415, "the body is not JSON");
const TOO_MUCH: (u16, &str) = (422, "the answer would be too large");
const INTERNAL: (u16, &str) = (500, "our fault; `request_id` stands in the log");
const AWAY: (u16, &str) = (503, "a part that is needed is away: see Retry-After");
const TIMEOUT: (u16, &str) = (504, "the query took too long");

/// Of queries.
pub struct QueryProblems;
/// Of changes to definitions.
pub struct DefinitionProblems;
/// Of changes to keys.
pub struct AdminProblems;
/// Of everything that only reads and has no body.
pub struct ReadProblems;
/// Of what needs no key.
pub struct PublicProblems;

impl IntoResponses for QueryProblems {
    fn responses() -> Responses {
        problems(&[
            BAD_REQUEST,
            UNAUTHORIZED,
            FORBIDDEN,
            SLOW_BODY,
            TOO_LARGE,
            MEDIA_TYPE,
            TOO_MUCH,
            TOO_MANY,
            INTERNAL,
            AWAY,
            TIMEOUT,
        ])
    }
}

impl IntoResponses for DefinitionProblems {
    fn responses() -> Responses {
        problems(&[
            BAD_REQUEST,
            UNAUTHORIZED,
            FORBIDDEN,
            NOT_FOUND,
            CONFLICT,
            SLOW_BODY,
            PRECONDITION,
            TOO_LARGE,
            MEDIA_TYPE,
            TOO_MANY,
            INTERNAL,
            AWAY,
            TIMEOUT,
        ])
    }
}

impl IntoResponses for AdminProblems {
    fn responses() -> Responses {
        problems(&[
            BAD_REQUEST,
            UNAUTHORIZED,
            FORBIDDEN,
            NOT_FOUND,
            KEY_CONFLICT,
            SLOW_BODY,
            TOO_LARGE,
            MEDIA_TYPE,
            TOO_MANY,
            INTERNAL,
            AWAY,
        ])
    }
}

impl IntoResponses for ReadProblems {
    fn responses() -> Responses {
        problems(&[BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, TOO_MANY, INTERNAL, AWAY])
    }
}

impl IntoResponses for PublicProblems {
    fn responses() -> Responses {
        problems(&[INTERNAL])
    }
}

/// Adds what other crates describe: the definition's JSON Schema, which is the contract's own.
pub fn finish(document: OpenApiDocument) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let settings = schemars::generate::SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let _reference = generator.subschema_for::<DefinitionText>();
    for (name, schema) in generator.take_definitions(true) {
        document["components"]["schemas"][&name] = schema;
    }
    document
}

/// The OpenAPI 3.1 document of this API.
#[utoipa::path(
    get, path = "/openapi.json", tag = "about",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json"), PublicProblems)
)]
pub async fn openapi_json(State(state): State<ApiState>) -> Result<AxumResponse, Problem> {
    let text = state.openapi().get().cloned().ok_or_else(|| Problem::internal(&"the document was not built"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}
