//! `GET /stream/{path}`: an audio file, or ranges of it, for whoever has a signed link.

use std::{
    ops::Range,
    sync::Arc,
    time::{Instant, SystemTime},
};

use antiphon_core::gateway::ErrorCode;
use axum::{
    Router,
    body::Body,
    extract::{OriginalUri, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use time::OffsetDateTime;

use super::{
    Api,
    error::{ApiError, ApiResult, ErrorBody},
};
use crate::{
    client_address::ClientAddress,
    error::AppError,
    random,
    streaming::{Asker, FilePath, Link, OpenFile, Part, Product, Verdict, Wanted, judge, wanted},
    telemetry::metrics::{StreamRefusal, metrics},
    transcode::Quality,
};

/// Where files are; its route takes sub-folders too, which a document cannot say.
const PREFIX: &str = "/stream/";

/// What qualities are (RFC 7845 section 9).
pub(super) const OGG: &str = "audio/ogg";

/// Headers of every file: what it is must not be guessed, it runs no script, its link goes to nobody else, and other
/// origins' players may play it, since the link and not the page says who may.
pub(super) const SAFE: [(HeaderName, HeaderValue); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; media-src 'self'; style-src 'unsafe-inline'"),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("cross-origin")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
];

/// This route, described by [`stream`].
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/stream/{*path}", get(stream))
}

/// What a link says behind the `?`.
#[derive(Deserialize)]
struct LinkQuery {
    expires: Option<String>,
    sig: Option<String>,
    quality: Option<String>,
}

/// An audio file, or ranges of it (RFC 9110 14), for whoever has a signed link. A range longer than
/// `streaming.max_range_size_bytes` that does not reach the file's end is answered shortened. A quality is made at its
/// first request, which waits for it up to `streaming.transcode_wait_s`.
#[utoipa::path(get, path = "/stream/{path}", tag = "streams", security(()),
    params(("path" = String, Path, description = "The file's path in the folder, with its sub-folders"),
        ("expires" = u64, Query, description = "When the link runs out, in Unix seconds"),
        ("sig" = String, Query, description = "The link's signature"),
        ("quality" = Option<String>, Query, description = "`low`, `medium`, `high` (Ogg Opus), or `original`, as when absent"),
        ("Range" = Option<String>, Header, description = "`bytes=0-499`, `bytes=500-`, `bytes=-500`, or several")),
    responses((status = OK, description = "The file", content_type = "audio/*"),
        (status = PARTIAL_CONTENT, description = "The ranges asked for; several as `multipart/byteranges`"),
        (status = NOT_MODIFIED, description = "The client has it: `If-None-Match`, `If-Modified-Since`"),
        (status = FORBIDDEN, description = "`BAD_SIGNATURE`", body = ErrorBody),
        (status = GONE, description = "`LINK_EXPIRED`", body = ErrorBody),
        (status = PRECONDITION_FAILED, description = "`INVALID_INPUT`: it is not what `If-Match` or `If-Unmodified-Since` names", body = ErrorBody),
        (status = UNPROCESSABLE_ENTITY, description = "`INVALID_INPUT`: this quality cannot be made of the file", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: the quality is being made, or the bucket with the file is away; `Retry-After` says when to come back", body = ErrorBody),
        (status = RANGE_NOT_SATISFIABLE, description = "`RANGE_NOT_SATISFIABLE`; `Content-Range` says how long the file is", body = ErrorBody)))]
pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    client: ClientAddress,
    method: Method,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let path = uri.path().strip_prefix(PREFIX).and_then(FilePath::from_url).ok_or_else(|| {
        metrics().streaming.refused.of(StreamRefusal::NotFound).increment(1);
        ApiError::new(ErrorCode::NotFound, "there is no such audio file")
    })?;
    let quality = check_link(&api, &path, &uri).inspect_err(|error| count_refusal(error.code))?;
    let source = api.streams.file(&path).await.inspect_err(|error| count_refusal(error.code))?;
    let (file, media_type) = match quality {
        None => (source, path.media_type()),
        Some(quality) => {
            let by = Asker::Address(client.limit_key());
            (api.streams.made(&path, &source, Product::Quality(quality), by).await?, OGG)
        }
    };
    match judge(&headers, &file.etag, file.modified) {
        Verdict::Failed => {
            let message = "the file is no longer the one that the request means";
            Err(ApiError::invalid_as(StatusCode::PRECONDITION_FAILED, message))
        }
        Verdict::NotModified => {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            describe(&mut response, &file);
            Ok(response)
        }
        Verdict::Go { ranges } => {
            let range = headers.get(header::RANGE).filter(|_| ranges && method == Method::GET);
            let range = range.and_then(|value| value.to_str().ok());
            let program = headers.get(header::USER_AGENT).and_then(|program| program.to_str().ok()).unwrap_or_default();
            answer(&api, (client, program), &method, (&path, quality), (media_type, file), range)
        }
    }
}

/// Whether the link is good now, and for which quality; `None` for the file as it is.
pub(super) fn check_link(api: &Api, path: &FilePath, uri: &Uri) -> Result<Option<Quality>, AppError> {
    let bad = |message: &str| AppError::new(ErrorCode::BadSignature, message);
    let Query(query) =
        Query::<LinkQuery>::try_from_uri(uri).map_err(|_| bad("the link needs expires and sig, each once"))?;
    let (Some(expires), Some(sig)) = (&query.expires, &query.sig) else {
        return Err(bad("the link needs expires and sig: POST /api/streams/sign makes links"));
    };
    let quality = query.quality.as_deref().unwrap_or_default();
    let link = Link { path, expires, quality };
    api.streams.secrets().check(link, sig, now_s())?;
    quality_of(quality)
}

/// Unix seconds.
pub(super) fn now_s() -> u64 {
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or(0)
}

/// The quality of a name; `None` for the file as it is.
pub(super) fn quality_of(name: &str) -> Result<Option<Quality>, AppError> {
    if ["", "original"].contains(&name) {
        return Ok(None);
    }
    let wrong = || AppError::new(ErrorCode::InvalidInput, "quality must be low, medium, high or original");
    Quality::of(name).map(Some).ok_or_else(wrong)
}

fn count_refusal(code: ErrorCode) {
    let why = match code {
        ErrorCode::LinkExpired => StreamRefusal::Expired,
        ErrorCode::BadSignature => StreamRefusal::BadSignature,
        ErrorCode::NotFound => StreamRefusal::NotFound,
        _ => return,
    };
    metrics().streaming.refused.of(why).increment(1);
}

/// The file, of a media type, or what is wanted of it.
fn answer(
    api: &Api,
    (client, program): (ClientAddress, &str),
    method: &Method,
    (path, quality): (&FilePath, Option<Quality>),
    (name, file): (&'static str, Arc<OpenFile>),
    range: Option<&str>,
) -> ApiResult<Response> {
    let length = file.length;
    let media_type = HeaderValue::from_static(name);
    let (status, media_type, content_range, parts) = match wanted(range, length, api.streams.range_bytes_max()) {
        Wanted::Unsatisfiable => return Ok(unsatisfiable(&file)),
        Wanted::Whole => (StatusCode::OK, media_type, None, vec![Part::File(0..length)]),
        Wanted::Parts(ranges) => match <[Range<u64>; 1]>::try_from(ranges) {
            Ok([range]) => {
                let content_range = content_range(&range, length);
                (StatusCode::PARTIAL_CONTENT, media_type, Some(content_range), vec![Part::File(range)])
            }
            Err(ranges) => {
                let boundary = random::text::<18>();
                let parts = multipart(&boundary, ranges, name, length);
                let media_type = header_value(format!("multipart/byteranges; boundary={boundary}"))?;
                (StatusCode::PARTIAL_CONTENT, media_type, None, parts)
            }
        },
    };
    let content_length: u64 = parts.iter().map(Part::length).sum();
    let body = if *method == Method::HEAD {
        Body::empty()
    } else {
        let place = api.streams.place(client.limit_key())?;
        let now = (Instant::now(), SystemTime::now());
        let heard = api.streams.listening().begin((path, quality, length), (client.0, program), now);
        Body::from_stream(api.streams.body(Arc::clone(&file), parts, (place, heard)))
    };
    let mut response = (status, body).into_response();
    describe(&mut response, &file);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CONTENT_LENGTH, content_length.into());
    if let Some(content_range) = content_range {
        headers.insert(header::CONTENT_RANGE, header_value(content_range)?);
    }
    Ok(response)
}

/// What every answer says of the file.
fn describe(response: &mut Response, file: &OpenFile) {
    let headers = response.headers_mut();
    headers.extend(SAFE);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Whoever has it asks whether it is still the same; the link is one person's.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    for (name, value) in
        [(header::ETAG, file.etag.clone()), (header::LAST_MODIFIED, httpdate::fmt_http_date(file.modified))]
    {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

fn unsatisfiable(file: &OpenFile) -> Response {
    let message = format!("the file has {} bytes, and none of the ranges asked for", file.length);
    let mut response = ApiError::new(ErrorCode::RangeNotSatisfiable, message).into_response();
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{}", file.length)) {
        response.headers_mut().insert(header::CONTENT_RANGE, value);
    }
    response
}

fn content_range(range: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end - 1)
}

/// Several ranges as RFC 9110 14.6 puts them into one body.
fn multipart(boundary: &str, ranges: Vec<Range<u64>>, media_type: &str, length: u64) -> Vec<Part> {
    let mut parts = Vec::with_capacity(ranges.len() * 2 + 1);
    for range in ranges {
        let content_range = content_range(&range, length);
        let head = format!("\r\n--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {content_range}\r\n\r\n");
        parts.push(Part::Bytes(head.into()));
        parts.push(Part::File(range));
    }
    parts.push(Part::Bytes(format!("\r\n--{boundary}--\r\n").into()));
    parts
}

/// A header's value of our own making.
fn header_value(text: String) -> ApiResult<HeaderValue> {
    HeaderValue::try_from(text).map_err(|_| ApiError::new(ErrorCode::InternalError, "an internal error"))
}
