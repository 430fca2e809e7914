//! The page at `/`: what runs here and where to go. One file, nothing from elsewhere.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{Html, IntoResponse},
    routing::get,
};

use super::{Addresses, Api};

/// Nothing but its own inline style.
const POLICY: (HeaderName, HeaderValue) = (
    header::CONTENT_SECURITY_POLICY,
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"),
);

/// The route.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/", get(page))
}

async fn page(State(api): State<Arc<Api>>) -> impl IntoResponse {
    // Not the name that the request gives, which anyone can make up.
    let url = format!("{}://{}", api.addresses.http_scheme(), Addresses::from_here(api.addresses.http));
    let html = include_str!("page.html")
        .replace("{url}", &url)
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{gateway_port}", &api.addresses.websocket.port().to_string())
        .replace("{udp_port}", &api.addresses.udp.port().to_string());
    ([POLICY], Html(html))
}
