//! How a client comes in: `GET /ws`, or any path on the WebSocket port.

use std::{net::IpAddr, sync::Arc};

use antiphon_core::{
    gateway::{Encoding, ErrorCode, MSGPACK_SUBPROTOCOL, UserView},
    ids::ChannelId,
};
use axum::{
    Router,
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderValue, header, request::Parts, uri::Authority},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::Deserialize;
use tracing::Instrument as _;

use super::{
    Gateway,
    connection::{Arrival, run},
    socket::{Handshake, has_token},
};
use crate::{
    auth::bearer_token,
    client_address::{ClientAddress, ReachedAddress},
    error::AppError,
    origins::is_of_host,
    places::{Place, Places},
    telemetry::metrics::metrics,
};

/// When to try again where a node takes no more connections.
const RETRY_AFTER_S: u64 = 1;

/// The gateway at `GET /ws`. Requests must carry a [`ClientAddress`] as an extension.
pub fn router(gateway: Gateway) -> Router {
    Router::new().route("/ws", get(upgrade)).with_state(gateway)
}

/// The gateway at any path.
pub fn any_path_router(gateway: Gateway) -> Router {
    Router::new().fallback(upgrade).with_state(gateway)
}

async fn upgrade(State(gateway): State<Gateway>, request: Request) -> Response {
    // A body is not shared between threads, and there is none.
    let (mut request, _) = request.into_parts();
    match prepare(&gateway, &mut request).await {
        Ok((handshake, arrival)) => {
            let protocol = (arrival.encoding == Encoding::MessagePack).then_some(MSGPACK_SUBPROTOCOL);
            let (response, socket) = handshake.accept(protocol);
            let span = tracing::info_span!(
                parent: None,
                "session",
                session_id = tracing::field::Empty,
                user_id = tracing::field::Empty
            );
            let connection = async move {
                if let Some(socket) = socket.await {
                    run(gateway, socket, arrival).await;
                    tracing::debug!("connection ended");
                }
            };
            tokio::spawn(connection.instrument(span));
            response
        }
        Err(error) => error.into_response(),
    }
}

async fn prepare(gateway: &Gateway, request: &mut Parts) -> Result<(Handshake, Arrival), AppError> {
    let handshake = Handshake::of(request).map_err(|wrong| AppError::new(ErrorCode::InvalidInput, wrong))?;
    let reached_host = reached_host(request, gateway.rooms().udp_address().ip());
    check_origin(gateway, &request.headers, &reached_host)?;
    if gateway.is_draining() {
        let message = "this node is about to stop: connect to another";
        return Err(AppError::retry(ErrorCode::TemporarilyUnavailable, message, RETRY_AFTER_S));
    }
    if gateway.connections() >= gateway.config().connections {
        let message = "this node has as many connections as it may have: try later, or another node";
        return Err(AppError::retry(ErrorCode::TemporarilyUnavailable, message, RETRY_AFTER_S));
    }
    let address = client_address(request)?;
    let place = place(gateway, address)?;
    let headers = &request.headers;
    let packed = has_token(headers, header::SEC_WEBSOCKET_PROTOCOL, MSGPACK_SUBPROTOCOL);
    let arrival = Arrival {
        encoding: if packed { Encoding::MessagePack } else { Encoding::Json },
        room: room_of(request)?,
        user: identify(gateway, request).await?,
        address,
        place,
        reached_host,
        reached_address: request.extensions.get::<ReachedAddress>().map(|reached| reached.0),
    };
    Ok((handshake, arrival))
}

/// A place among the connections of an address: for as long as the connection lasts, whoever it turns out to be.
fn place(gateway: &Gateway, address: IpAddr) -> Result<Place, AppError> {
    Places::take(&gateway.inner.places, ClientAddress(address).limit_key()).map_err(|_| {
        metrics().gateway.connections_refused.increment(1);
        let most = gateway.config().connections_per_address;
        let message = format!("this address has {most} connections, the most allowed: close one first");
        AppError::retry(ErrorCode::RateLimited, message, RETRY_AFTER_S)
    })
}

/// Lets in native clients, which name no origin, and the pages that may call this server: its own, those of this machine
/// and those that the operator allows. Browsers ask no CORS preflight for a WebSocket, so that this is the only check.
fn check_origin(gateway: &Gateway, headers: &HeaderMap, reached_host: &str) -> Result<(), AppError> {
    let allowed = &gateway.config().allowed_origins;
    let may_call = |origin: &str| allowed.allow(origin) || is_of_host(origin, reached_host);
    let all_may = |origin: &HeaderValue| origin.to_str().is_ok_and(may_call);
    if allowed.any() || headers.get_all(header::ORIGIN).iter().all(all_may) {
        return Ok(());
    }
    let message = "pages of this origin may not connect: the server's `http.allowed_origins` does not name it";
    Err(AppError::new(ErrorCode::PermissionDenied, message))
}

#[derive(Deserialize)]
struct Parameters {
    token: Option<String>,
}

#[derive(Deserialize)]
struct RoomParameter {
    room_id: Option<String>,
}

/// The room that a connection is made for, if it names one.
fn room_of(request: &Parts) -> Result<Option<ChannelId>, AppError> {
    let named = Query::<RoomParameter>::try_from_uri(&request.uri).ok().and_then(|Query(named)| named.room_id);
    let parse = |room: String| {
        room.parse().map_err(|_| AppError::new(ErrorCode::InvalidInput, "room_id on connecting is no room's id"))
    };
    named.map(parse).transpose()
}

/// Who the token on connecting stands for, if there is one.
async fn identify(gateway: &Gateway, request: &Parts) -> Result<Option<UserView>, AppError> {
    let from_header = bearer_token(&request.headers)?.map(str::to_owned);
    let parameters = Query::<Parameters>::try_from_uri(&request.uri);
    let from_query = parameters.ok().and_then(|Query(parameters)| parameters.token);
    match from_header.or(from_query) {
        Some(token) => Ok(Some(gateway.auth().authenticate(&token).await?.user)),
        None => Ok(None),
    }
}

fn client_address(request: &Parts) -> Result<IpAddr, AppError> {
    let address = request.extensions.get::<ClientAddress>().map(|address| address.0);
    address.ok_or_else(|| AppError::new(ErrorCode::InternalError, "the request came from no address"))
}

/// The host that the client asked for, without a port; the node's own address where it named none.
fn reached_host(request: &Parts, own: IpAddr) -> Arc<str> {
    let named = request.headers.get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let host = named.as_ref().map(Authority::host).or(request.uri.host());
    match host.filter(|host| !host.is_empty()) {
        Some(host) => host.into(),
        None => match own {
            IpAddr::V4(address) => address.to_string().into(),
            IpAddr::V6(address) => format!("[{address}]").into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn host(header: Option<&'static str>, uri: &'static str) -> String {
        let mut request = Request::new(()).into_parts().0;
        request.uri = uri.parse().expect("a URI");
        if let Some(host) = header {
            request.headers.insert(header::HOST, host.parse().expect("a header"));
        }
        reached_host(&request, IpAddr::from([192, 0, 2, 7])).to_string()
    }

    #[test]
    fn the_host_is_the_one_the_client_asked_for() {
        assert_eq!(host(Some("voice.example.org:3000"), "/ws"), "voice.example.org");
        assert_eq!(host(Some("voice.example.org"), "/ws"), "voice.example.org");
        assert_eq!(host(Some("127.0.0.1:3000"), "/ws"), "127.0.0.1");
        assert_eq!(host(Some("[::1]:3000"), "/ws"), "[::1]");
        assert_eq!(host(None, "http://a.example/ws"), "a.example");
        assert_eq!(host(None, "/ws"), "192.0.2.7");
        assert_eq!(host(Some("two words"), "/ws"), "192.0.2.7");
    }
}
