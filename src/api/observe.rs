//! Around every request: its id, its span, its address and that address's limit, its time limit, its metrics.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::gateway::ErrorCode;
use axum::{
    extract::{MatchedPath, Request, State},
    http::{self, HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument;
use uuid::Uuid;

use super::{
    Api,
    error::ApiError,
    health::DETAILED_PATH,
    serve::{GiveUp, Peer},
};
use crate::{
    client_address::ClientAddress,
    error::AppError,
    telemetry::{
        logs::MaskedAddress,
        metrics::{Area, Method, StatusClass, metrics},
    },
};

/// The header that carries a request's id, both ways.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the middleware knows.
#[derive(Clone)]
pub(super) struct Observer {
    pub(super) api: Arc<Api>,
    /// Where requests belong that no route matches.
    pub(super) unmatched: Area,
}

/// The middleware.
pub(super) async fn observe(State(observer): State<Observer>, mut request: Request, next: Next) -> Response {
    let Observer { api, unmatched } = observer;
    let started = Instant::now();
    let _in_flight = InFlight::begin();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let (area, method) = (route.as_deref().map_or(unmatched, area_of), method_of(request.method()));
    let request_id = request_id_of(request.headers());
    let client = client_of(&request, &api);
    let span = tracing::info_span!(
        "request",
        request_id = %request_id.to_str().unwrap_or_default(),
        method = %request.method(),
        route = route.as_deref().unwrap_or("unknown"),
        network = %client.map_or_else(|| "unknown".to_owned(), |client| MaskedAddress(client.0).to_string()),
        user_id = tracing::field::Empty,
    );
    if let Some(client) = client {
        request.extensions_mut().insert(client);
    }
    let refused = client.and_then(|client| refusal(&api, area, route.as_deref(), client));
    let mut response = match refused {
        Some(error) => error.into_response(),
        None => {
            let limit = time_limit(&api, request.method(), route.as_deref());
            answer(limit, request, next).instrument(span.clone()).await
        }
    };
    finish(&mut response, area, request_id);
    let took = started.elapsed();
    // What is not ready says so to everyone who asks, as it should.
    let is_failure = response.status().is_server_error()
        && (response.status() != StatusCode::SERVICE_UNAVAILABLE || api.health.is_ready());
    count(&response, (area, method), took);
    log(&span, &response, took, is_failure);
    response
}

/// The limit of its address that a request runs into, if it does. What load balancers ask is answered however busy their
/// address is, and costs next to nothing; figures have a limit of their own.
fn refusal(api: &Api, area: Area, route: Option<&str>, client: ClientAddress) -> Option<AppError> {
    let checked = match area {
        Area::Metrics => api.limits.check_observation(client),
        Area::Health if route == Some(DETAILED_PATH) => api.limits.check_observation(client),
        Area::Health => Ok(()),
        Area::Streams
            if route.is_some_and(|route| ["/stream/", "/listen/"].iter().any(|place| route.starts_with(place))) =>
        {
            api.limits.check_stream(client)
        }
        _ => api.limits.check_address(client),
    };
    checked.err()
}

/// How long a request may take: a file that is uploaded over a slow way, longer.
fn time_limit(api: &Api, method: &http::Method, route: Option<&str>) -> Duration {
    let is_upload =
        [http::Method::PUT, http::Method::POST].contains(method) && route == Some(super::stream_parts::ROUTE);
    let seconds = if is_upload {
        api.settings.streaming.upload_timeout_s.max(api.settings.http.request_timeout_s)
    } else {
        api.settings.http.request_timeout_s
    };
    Duration::from_secs(seconds.into())
}

/// The answer, or the error of the time limit.
async fn answer(limit: Duration, request: Request, next: Next) -> Response {
    let give_up = request.extensions().get::<GiveUp>().cloned();
    // In a task of its own, so that what was begun is done: a client that goes away, or time that runs out, must not leave
    // somebody banned in the database and still in voice. Who sends a body without end is not read for ever all the same.
    let handling = tokio::spawn(tokio::time::timeout(limit * 2, next.run(request)).in_current_span());
    match tokio::time::timeout(limit, handling).await {
        Ok(Ok(Ok(response))) if response.status() == StatusCode::REQUEST_TIMEOUT => closing(give_up, response),
        Ok(Ok(Ok(response))) => response,
        Ok(Err(error)) => {
            tracing::error!(%error, "a handler's task ended early");
            ApiError::new(ErrorCode::InternalError, "an internal error; the server's log has more").into_response()
        }
        Ok(Ok(Err(_))) | Err(_) => {
            let seconds = limit.as_secs();
            let message =
                format!("this takes longer than {seconds} s; it may still be carried out: look before trying again");
            closing(give_up, ApiError::new(ErrorCode::Timeout, message))
        }
    }
}

/// An answer to a client that may be what was waited for: it does not hold its connection by sending on, or nothing.
fn closing(give_up: Option<GiveUp>, answer: impl IntoResponse) -> Response {
    if let Some(give_up) = give_up {
        give_up.ask();
    }
    ([(header::CONNECTION, "close")], answer).into_response()
}

/// Headers that every answer has.
fn finish(response: &mut Response, area: Area, request_id: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if area != Area::Docs {
        // Answers hold tokens and what only their reader may see.
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
}

fn count(response: &Response, (area, method): (Area, Method), took: Duration) {
    let http = &metrics().http;
    let status = response.status();
    http.requests.of((area, method, class_of(status))).increment(1);
    http.duration.of((area, method)).record(took.as_secs_f64());
    if let Some(code) = response.extensions().get::<ErrorCode>() {
        http.errors.of(*code).increment(1);
    }
}

fn log(span: &tracing::Span, response: &Response, took: Duration, is_failure: bool) {
    let status = response.status().as_u16();
    let code = response.extensions().get::<ErrorCode>().map_or("", |code| code.as_str());
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let _entered = span.enter();
    if is_failure {
        tracing::warn!(status, code, took_us, "request failed");
    } else {
        tracing::debug!(status, code, took_us, "request answered");
    }
}

/// The client's own id for the request when it is harmless to repeat in a log, else a new one.
fn request_id_of(headers: &HeaderMap) -> HeaderValue {
    let harmless = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=64).contains(&bytes.len()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
    };
    headers.get(REQUEST_ID).filter(harmless).cloned().unwrap_or_else(|| {
        let id = Uuid::now_v7().to_string();
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("none"))
    })
}

fn client_of(request: &Request, api: &Api) -> Option<ClientAddress> {
    let Peer(peer) = request.extensions().get()?;
    Some(ClientAddress::of(peer.ip(), request.headers(), &api.settings.server.trusted_proxies))
}

/// The part of the API that a route belongs to.
fn area_of(route: &str) -> Area {
    let below = |prefix: &str| route.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match route {
        _ if below("/api/auth") || below("/api/users") || below("/api/v1/users") => Area::Accounts,
        _ if below("/api/channels")
            || below("/api/invites")
            || below("/api/v1/rooms")
            || below("/whip")
            || below("/whep") =>
        {
            Area::Channels
        }
        _ if below("/api/audio") => Area::Audio,
        _ if below("/api/streams") || below("/stream") || below("/listen") || below("/admin") => Area::Streams,
        _ if below("/api/advanced") => Area::Advanced,
        _ if below("/api/metrics") => Area::Figures,
        _ if below("/health") => Area::Health,
        _ if below("/metrics") => Area::Metrics,
        _ if below("/ws") => Area::Gateway,
        _ => Area::Docs,
    }
}

fn method_of(method: &http::Method) -> Method {
    match *method {
        http::Method::GET | http::Method::HEAD => Method::Get,
        http::Method::POST => Method::Post,
        http::Method::PUT => Method::Put,
        http::Method::DELETE => Method::Delete,
        _ => Method::Other,
    }
}

fn class_of(status: StatusCode) -> StatusClass {
    match status.as_u16() {
        ..200 => StatusClass::Informational,
        200..300 => StatusClass::Success,
        300..400 => StatusClass::Redirection,
        400..500 => StatusClass::ClientError,
        500.. => StatusClass::ServerError,
    }
}

/// Counts a request as in flight for as long as it lives, also when its client gives up.
struct InFlight;

impl InFlight {
    fn begin() -> Self {
        metrics().http.in_flight.increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics().http.in_flight.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harmless_request_id_is_kept_and_another_replaced() {
        let id = |sent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, sent.parse().expect("a header"));
            request_id_of(&headers).to_str().expect("ASCII").to_owned()
        };
        assert_eq!(id("trace-1.a_B"), "trace-1.a_B");
        for wrong in ["", "two words", "a\"b", &"x".repeat(65)] {
            assert!(Uuid::parse_str(&id(wrong)).is_ok(), "{wrong}");
        }
        assert!(Uuid::parse_str(request_id_of(&HeaderMap::new()).to_str().expect("ASCII")).is_ok());
    }

    #[test]
    fn routes_belong_to_areas() {
        for (route, area) in [
            ("/api/users/{id}", Area::Accounts),
            ("/api/auth/login", Area::Accounts),
            ("/api/v1/users/me/notifications", Area::Accounts),
            ("/api/channels", Area::Channels),
            ("/api/invites/{code}", Area::Channels),
            ("/api/audio/config", Area::Audio),
            ("/api/streams/sign", Area::Streams),
            ("/stream/{*path}", Area::Streams),
            ("/listen/{file}", Area::Streams),
            ("/api/advanced/users/{id}", Area::Advanced),
            ("/api/metrics/current", Area::Figures),
            ("/health/ready", Area::Health),
            ("/metrics", Area::Metrics),
            ("/ws", Area::Gateway),
            ("/docs/{*rest}", Area::Docs),
            ("/", Area::Docs),
        ] {
            assert_eq!(area_of(route), area, "{route:?}");
        }
    }
}
