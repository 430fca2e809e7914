//! The OpenAPI document, made from the handlers, and the page to read it.

use std::sync::Arc;

use antiphon_core::gateway::ErrorCode;
use axum::{Extension, Json, Router, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self, ContentBuilder, Ref, RefOr, ResponseBuilder,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{Api, error::ErrorBody};

/// Where the document is.
pub(super) const DOCUMENT_PATH: &str = "/api/openapi.json";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Antiphon",
        description = "Voice channels: accounts, channels and their members, health and metrics. \
            Talking itself goes over the gateway (`GET /ws`) and UDP, which `docs/protocol.md` describes. \
            Errors always have the shape of `ErrorBody`."
    ),
    paths(
        super::gateway_entry::gateway,
        super::stream_file::stream,
        super::listen::listen,
        super::stream_parts::show_stream,
        super::stream_parts::list_qualities,
        super::stream_parts::order_quality,
        super::stream_parts::get_waveform,
        super::stream_parts::get_waveform_png,
        super::stream_parts::get_waveform_svg,
        super::stream_uploads::upload_stream,
        super::stream_uploads::replace_stream,
        super::stream_uploads::delete_stream,
        super::stream_uploads::set_stream_tags
    ),
    components(schemas(ErrorBody, ErrorCode)),
    modifiers(&Bearer),
    security(("bearer" = [])),
    tags(
        (name = "accounts", description = "Signing up, logging in, and accounts"),
        (name = "channels", description = "Channels, their members and invites"),
        (name = "advanced", description = "Accounts in pages; people, channels and the server in figures; the audio configuration"),
        (name = "admin", description = "For administrators"),
        (name = "streams", description = "Audio files and channels behind signed links"),
        (name = "recordings", description = "Recordings of channels"),
        (name = "notifications", description = "What one is told of, and how"),
        (name = "rooms", description = "Rooms, where browsers meet by WebRTC"),
        (name = "webrtc", description = "WebRTC without a gateway: WHIP and WHEP"),
        (name = "audio", description = "What clients should capture and play"),
        (name = "gateway", description = "Where talking happens"),
        (name = "nodes", description = "The nodes of the cluster"),
        (name = "health", description = "Whether the server works"),
        (name = "metrics", description = "The cluster in figures: now, over a day, its alerts and its health"),
    )
)]
pub(super) struct Document;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some("An access token from `/api/auth/register`, `/api/auth/login` or `/api/users`."))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

/// Adds to each operation the errors that follow from what it takes: a token, a body, parameters.
pub(super) fn with_errors(mut document: openapi::OpenApi) -> openapi::OpenApi {
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        operations.into_iter().flatten().for_each(add_errors);
    }
    document
}

fn add_errors(operation: &mut Operation) {
    let open = operation
        .security
        .as_ref()
        .is_some_and(|requirements| requirements.iter().all(|r| *r == SecurityRequirement::default()));
    let has_parameters = operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty());
    let has_body = operation.request_body.is_some();
    let mut add = |status: &str, description: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
        let response = ResponseBuilder::new().description(description).content("application/json", content).build();
        operation.responses.responses.entry(status.to_owned()).or_insert(RefOr::T(response));
    };
    if has_parameters || has_body {
        add("400", "`INVALID_INPUT`: what was sent cannot be right");
    }
    if has_body {
        add("413", "`INVALID_INPUT`: the body is too large");
        add("415", "`INVALID_INPUT`: the body is not JSON, or does not say so");
    }
    if !open {
        add("401", "`UNAUTHENTICATED`: the token is missing, wrong or has run out");
    }
    if has_parameters {
        add("404", "What the path names does not exist, or not for whoever asks");
    }
    add("429", "`RATE_LIMITED`: too many requests; `Retry-After` says when to come back");
    add("default", "Any other error");
}

/// The document and its page.
pub(super) fn routes(document: openapi::OpenApi) -> Router<Arc<Api>> {
    let config = Config::new([DOCUMENT_PATH]).validator_url("none").persist_authorization(true);
    Router::from(SwaggerUi::new("/docs").config(config))
        .route(DOCUMENT_PATH, get(serve_document).layer(Extension(Arc::new(document))))
}

async fn serve_document(Extension(document): Extension<Arc<openapi::OpenApi>>) -> Json<openapi::OpenApi> {
    Json(openapi::OpenApi::clone(&document))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;

    use super::*;
    use crate::api::{listen, page, routes as described_routes, scrape, stream_file, stream_parts};

    /// Served, but not part of the API that the document describes.
    const NOT_DESCRIBED: [&str; 10] = [
        "get /api/openapi.json",
        "get /docs",
        "get /docs/",
        "get /docs/{*rest}",
        "get /stream/{*path}",
        "get /listen/{file}",
        "get /api/streams/{*path}",
        "post /api/streams/{*path}",
        "put /api/streams/{*path}",
        "delete /api/streams/{*path}",
    ];

    /// Described here, and served by the gateway or under a path that no document can name.
    const SERVED_ELSEWHERE: [&str; 13] = [
        "get /ws",
        "get /stream/{path}",
        "get /listen/{channel_id}.ogg",
        "get /api/streams/{path}",
        "post /api/streams/{path}",
        "put /api/streams/{path}",
        "delete /api/streams/{path}",
        "put /api/streams/{path}/tags",
        "get /api/streams/{path}/qualities",
        "post /api/streams/{path}/qualities",
        "get /api/streams/{path}/waveform",
        "get /api/streams/{path}/waveform.png",
        "get /api/streams/{path}/waveform.svg",
    ];

    const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

    fn described() -> (Router<Arc<Api>>, Value) {
        let (router, document) = described_routes().merge(scrape::routes()).split_for_parts();
        let document = with_errors(document);
        let value = serde_json::to_value(&document).expect("serialises");
        (
            router
                .merge(page::routes())
                .merge(stream_file::routes())
                .merge(stream_parts::routes())
                .merge(listen::file_routes())
                .merge(routes(document)),
            value,
        )
    }

    /// Every `method path` of a router. It tells them only by how it prints itself:
    /// `routes: {RouteId(1): MethodRouter(MethodRouter { get: BoxedHandler, head: None, …` and
    /// `paths: {RouteId(1): "/health", …`.
    fn routes_of(router: &Router<Arc<Api>>) -> BTreeSet<String> {
        let printed = format!("{router:?}");
        let (own, _fallback) = printed.split_once("fallback_router").expect("a router's form");
        let (routes, paths) = own.split_once("paths: {").expect("a router's form");
        let by_id = |text: &str| -> BTreeMap<String, String> {
            let entries = text.split("RouteId(").skip(1).filter_map(|entry| entry.split_once("): "));
            entries.map(|(id, rest)| (id.to_owned(), rest.to_owned())).collect()
        };
        let paths = by_id(paths);
        let mut found = BTreeSet::new();
        for (id, methods) in by_id(routes) {
            let path = paths[&id].split('"').nth(1).expect("a path in quotes");
            for method in METHODS {
                if !methods.contains(&format!("{method}: None")) {
                    found.insert(format!("{method} {path}"));
                }
            }
        }
        found
    }

    /// Every `method path` of the document with its operation.
    fn operations_of(document: &Value) -> BTreeMap<String, &Value> {
        let paths = document["paths"].as_object().expect("paths");
        paths
            .iter()
            .flat_map(|(path, item)| {
                let operations = item.as_object().expect("a path's operations").iter();
                operations.map(move |(method, operation)| (format!("{method} {path}"), operation))
            })
            .collect()
    }

    #[test]
    fn the_document_lists_every_route_and_no_other() {
        let (router, document) = described();
        let mut served = routes_of(&router);
        assert!(served.len() > 25, "{served:?}");
        let page = page::paths().map(|path| format!("get {path}"));
        for route in NOT_DESCRIBED.into_iter().map(str::to_owned).chain(page) {
            assert!(served.remove(&route), "{route} is not served");
        }
        served.extend(SERVED_ELSEWHERE.map(str::to_owned));
        assert_eq!(operations_of(&document).into_keys().collect::<BTreeSet<_>>(), served);
    }

    #[test]
    fn every_operation_says_what_it_is_takes_and_answers() {
        let (_, document) = described();
        assert!(document["openapi"].as_str().expect("a version").starts_with("3.1."));
        let mut ids = BTreeSet::new();
        for (route, operation) in operations_of(&document) {
            assert!(
                ids.insert(operation["operationId"].as_str().expect("an id").to_owned()),
                "{route}: its id is taken"
            );
            assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{route} has no summary");
            assert_eq!(operation["tags"].as_array().expect("tags").len(), 1, "{route}");
            let responses = operation["responses"].as_object().expect("responses");
            assert!(responses.keys().any(|status| status.starts_with(['1', '2'])), "{route} never succeeds");
            assert!(responses.contains_key("default"), "{route} never fails");
            let declared: BTreeSet<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().expect("a name"))
                .collect();
            let (_, path) = route.split_once(' ').expect("method and path");
            // An ending such as `.ogg` may follow.
            let in_path: BTreeSet<&str> =
                path.split('/').filter_map(|part| Some(part.strip_prefix('{')?.split_once('}')?.0)).collect();
            assert_eq!(declared, in_path, "{route}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let (_, document) = described();
        let mut pending = vec![&document];
        let mut references = 0;
        while let Some(value) = pending.pop() {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                references += 1;
                let pointer = reference.strip_prefix('#').expect("within the document");
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            match value {
                Value::Object(map) => pending.extend(map.values()),
                Value::Array(list) => pending.extend(list),
                _ => {}
            }
        }
        assert!(references > 100);
    }

    #[test]
    fn what_needs_a_token_says_so() {
        let (_, document) = described();
        let operations = operations_of(&document);
        assert_eq!(document["security"], serde_json::json!([{"bearer": []}]));
        for (route, open) in [("get /health", true), ("post /api/auth/login", true), ("post /api/channels", false)] {
            assert_eq!(operations[route]["responses"].get("401").is_none(), open, "{route}");
        }
    }
}
