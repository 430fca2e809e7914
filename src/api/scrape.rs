//! `GET /metrics`: on the HTTP port, or alone at an address of its own.

use std::sync::Arc;

use antiphon_core::gateway::ErrorCode;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
    routing::get,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    error::{ApiError, ApiResult},
};
use crate::{auth::bearer_token, telemetry::metrics};

/// What Prometheus calls its text format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The route, for the HTTP port.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(scrape))
}

/// A router that answers nothing else, for an address of its own.
pub(super) fn alone(api: Arc<Api>) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(api)
}

/// The server's metrics in Prometheus' text format. Where a token is set it must be sent as a bearer token.
#[utoipa::path(get, path = "/metrics", tag = "metrics", security((), ("bearer" = [])),
    responses((status = OK, description = "The metrics", body = String, content_type = "text/plain")))]
async fn scrape(State(api): State<Arc<Api>>, headers: HeaderMap) -> ApiResult<impl IntoResponse> {
    if let Some(wanted) = &api.settings.metrics.token {
        let given = bearer_token(&headers)?.unwrap_or_default();
        let same = verify_slices_are_equal(given.as_bytes(), wanted.expose().as_bytes()).is_ok();
        if !same {
            return Err(ApiError::new(
                ErrorCode::Unauthenticated,
                "send the metrics token: `Authorization: Bearer TOKEN`",
            ));
        }
    }
    api.sampler.sample();
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics::render()))
}
