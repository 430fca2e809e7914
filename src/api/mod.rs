//! The HTTP API: REST over JSON, health, metrics, and the documents that describe it.
//!
//! Each file declares its routes with their part of the OpenAPI document; [`router`] puts them together and wraps them:
//!
//! ```text
//! CORS > request id, span, address, limits, time limit, metrics > panics > body limit > route > handler
//! ```

mod accounts;
mod advanced;
mod answer;
mod audio;
mod channel_figures;
mod channels;
mod chat;
mod document;
pub mod drain;
pub mod error;
mod extract;
mod figures;
mod fragment;
mod gateway_entry;
pub mod health;
mod invites;
pub mod limits;
mod lingering;
mod listen;
mod members;
mod nodes;
mod notifications;
mod observe;
mod one_way;
mod page;
mod paging;
mod patience;
mod peers;
mod pieces;
mod playback;
mod recordings;
mod reports;
mod rooms;
mod scrape;
pub mod serve;
mod stream_file;
mod stream_parts;
mod stream_stats;
mod stream_uploads;
mod streams;
mod webhooks;
pub mod whip;

use std::{any::Any, net::SocketAddr, sync::Arc, time::Duration};

use antiphon_core::{gateway::ErrorCode, ids::NodeId};
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
};
use parking_lot::Mutex;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowOrigin, CorsLayer},
};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use self::audio::audio_of_settings;
use self::{
    document::Document,
    drain::Drain,
    error::ApiError,
    health::Health,
    limits::Limits,
    observe::{Observer, REQUEST_ID},
};
use crate::{
    auth::Auth,
    chat::Chat,
    cluster::{Placement, Registry},
    gateway::Gateway,
    media::Media,
    notify::{Notify, Outbox},
    origins::Origins,
    playback::Playbacks,
    recordings::Recordings,
    rooms::directory::Directory,
    settings::Settings,
    store::{AudioConfiguration, Store},
    streaming::{Catalogue, Streams},
    telemetry::{
        metrics::{Area, metrics},
        sampler::Sampler,
    },
    vitals::Vitals,
};

/// Everything that handlers use.
pub struct Api {
    /// The database.
    pub store: Store,
    /// Accounts and tokens.
    pub auth: Auth,
    /// What people write.
    pub chat: Chat,
    /// Places outside that are told what happens.
    pub notify: Notify,
    /// What single people are told of.
    pub outbox: Outbox,
    /// Channels.
    pub directory: Directory,
    /// The sessions that are connected.
    pub gateway: Gateway,
    /// Audio files.
    pub streams: Streams,
    /// The same as the database knows them.
    pub catalogue: Catalogue,
    /// What is played into channels.
    pub playbacks: Playbacks,
    /// Recordings of channels.
    pub recordings: Recordings,
    /// The media workers.
    pub media: Media,
    /// The nodes of the cluster.
    pub registry: Registry,
    /// Where new clients were sent.
    pub placement: Placement,
    /// This node's way out.
    pub drain: Arc<Drain>,
    /// For what is passed on to other nodes.
    pub http: reqwest::Client,
    /// Where the server is in its life.
    pub health: Arc<Health>,
    /// Rate limits.
    pub limits: Limits,
    /// What is counted elsewhere.
    pub sampler: Sampler,
    /// How this node and the cluster are.
    pub vitals: Arc<Vitals>,
    /// The audio configuration that this node works by.
    pub audio: Mutex<AudioConfiguration>,
    /// Clients without a connection to the gateway.
    pub standalone: whip::Standalone,
    /// What is set.
    pub settings: Arc<Settings>,
    /// Where the server listens.
    pub addresses: Addresses,
}

impl Api {
    /// This node's name.
    fn node_id(&self) -> NodeId {
        let view = self.registry.view().borrow().clone();
        let me = view.nodes.iter().find(|node| node.number == view.me);
        me.map_or_else(|| NodeId(String::new()), |me| me.node_id.clone())
    }
}

/// Where the server listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// HTTP, and the gateway at `/ws`.
    pub http: SocketAddr,
    /// The gateway at any path.
    pub websocket: SocketAddr,
    /// Voice.
    pub udp: SocketAddr,
    /// Metrics, where they have an address of their own.
    pub metrics: Option<SocketAddr>,
    /// Whether HTTP and the gateway speak TLS.
    pub is_tls: bool,
}

impl Addresses {
    /// An address as one on this machine reaches it.
    pub fn from_here(address: SocketAddr) -> String {
        if address.ip().is_unspecified() { format!("localhost:{}", address.port()) } else { address.to_string() }
    }

    /// Where HTTP is, for a URL: `http` or `https`.
    #[must_use]
    pub fn http_scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// Where the gateway is, for a URL: `ws` or `wss`.
    #[must_use]
    pub fn websocket_scheme(&self) -> &'static str {
        if self.is_tls { "wss" } else { "ws" }
    }
}

/// How long a browser may remember what another origin may do.
const CORS_MAX_AGE: Duration = Duration::from_secs(600);

/// The HTTP port's router, with `gateway`'s routes among its own.
pub fn router(api: &Arc<Api>, gateway: Router) -> Router {
    let metrics_here = api.settings.metrics.listen.is_none();
    let described = if metrics_here { routes().merge(scrape::routes()) } else { routes() };
    let (router, document) = described.split_for_parts();
    let router = router
        .merge(page::routes())
        .merge(stream_file::routes())
        .merge(stream_parts::routes())
        .merge(listen::file_routes())
        .merge(document::routes(document::with_errors(document)));
    layered(api, Area::Unknown, refusing_others(router.with_state(Arc::clone(api)).merge(gateway)))
}

/// The WebSocket port's router: `gateway` alone, which answers at any path.
pub fn gateway_router(api: &Arc<Api>, gateway: Router) -> Router {
    layered(api, Area::Gateway, gateway)
}

/// The router of an address that serves metrics alone.
pub fn metrics_router(api: &Arc<Api>) -> Router {
    layered(api, Area::Unknown, refusing_others(scrape::alone(Arc::clone(api))))
}

/// The routes that the OpenAPI document describes.
fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(accounts::routes())
        .merge(channels::routes())
        .merge(chat::routes())
        .merge(reports::routes())
        .merge(webhooks::routes())
        .merge(recordings::routes())
        .merge(notifications::routes())
        .merge(members::routes())
        .merge(playback::routes())
        .merge(invites::routes())
        .merge(rooms::routes())
        .merge(audio::routes())
        .merge(streams::routes())
        .merge(listen::routes())
        .merge(stream_stats::routes())
        .merge(advanced::routes())
        .merge(figures::routes())
        .merge(whip::routes())
        .merge(nodes::routes())
        .merge(health::routes())
}

/// Answers what no route takes with errors in the one shape.
fn refusing_others(router: Router) -> Router {
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method)
}

/// What is around every request. Requests that no route matches belong to `unmatched`.
fn layered(api: &Arc<Api>, unmatched: Area, router: Router) -> Router {
    let observer = Observer { api: Arc::clone(api), unmatched };
    router
        .layer(DefaultBodyLimit::max(usize::try_from(api.settings.http.body_bytes_max).unwrap_or(usize::MAX)))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(observer, observe::observe))
        .layer(cors(&api.settings.http.allowed_origins))
}

async fn no_such_path() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there is nothing at this path; /docs/ lists what there is")
}

async fn no_such_method(method: Method) -> ApiError {
    let message = format!("this path does not take {method}; the Allow header says what it takes");
    ApiError::new(ErrorCode::MethodNotAllowed, message)
}

/// A handler panicked. The panic hook has written where; the client learns no more than that it is our fault.
fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    metrics().http.panics.increment(1);
    ApiError::new(ErrorCode::InternalError, "an internal error; the server's log has more").into_response()
}

/// Lets pages of `origins` call the server from a browser, and pages on this machine. `*` lets all.
fn cors(origins: &[String]) -> CorsLayer {
    let origins = Origins::new(origins);
    let allowed = if origins.any() {
        AllowOrigin::any()
    } else {
        AllowOrigin::predicate(move |origin, _| origin.to_str().is_ok_and(|origin| origins.allow(origin)))
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::RANGE,
            header::IF_RANGE,
            header::IF_NONE_MATCH,
            REQUEST_ID,
        ])
        .expose_headers([
            header::RETRY_AFTER,
            header::LOCATION,
            header::LINK,
            header::ACCEPT_RANGES,
            header::CONTENT_RANGE,
            header::CONTENT_LENGTH,
            header::ETAG,
            REQUEST_ID,
        ])
        .max_age(CORS_MAX_AGE)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request, routing::get};
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_answers_and_is_counted() {
        async fn panicking() {
            panic!("a private detail");
        }
        let router: Router = Router::new().route("/", get(panicking)).layer(CatchPanicLayer::custom(panicked));
        let response = router.oneshot(Request::new(Body::empty())).await.expect("an answer");
        assert_eq!(response.status(), 500);
        assert_eq!(response.extensions().get(), Some(&ErrorCode::InternalError));
        let body = axum::body::to_bytes(response.into_body(), 4_096).await.expect("reads");
        assert!(!String::from_utf8_lossy(&body).contains("private"));
    }
}
