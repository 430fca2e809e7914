//! What belongs to one file of the library: its qualities, what is known of it, and its waveform. A file's path may have
//! sub-folders, so that all of this hangs on one route and is told apart by its end.

use std::sync::Arc;

use antiphon_core::{gateway::ErrorCode, ids::UserId};
use axum::{
    Router,
    extract::{FromRequest, FromRequestParts, OriginalUri, Query, Request, State},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Api,
    answer::Answer,
    error::{ApiError, ApiResult, ErrorBody},
    extract::{Body, Caller, QueryOf},
    stream_file::{check_link, quality_of},
    stream_uploads::{delete_stream, replace_stream, set_stream_tags, upload_stream},
};
use crate::{
    client_address::ClientAddress,
    streaming::{
        Asker, Facts, FilePath, Made, NotMade, OpenFile, Product, State as MadeState,
        waveform::{self, HEIGHT_MAX, POINTS_MAX, Picture, WIDTH_MAX, WaveformJson, ZOOMS},
    },
    transcode::{Loudness, Peaks, Quality},
};

/// All of this.
pub(super) const ROUTE: &str = "/api/streams/{*path}";

/// Where files of the library are.
const PREFIX: &str = "/api/streams/";

/// Pictures, where nothing else is asked for.
const WIDTH: u32 = 1_000;
const HEIGHT: u32 = 200;
const COLOR: [u8; 3] = [0x3b, 0x82, 0xf6];

/// The one route of all this, described by its handlers.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route(ROUTE, get(get_part).post(write_part).put(write_part).delete(delete_part))
}

/// A part of a file, by the end of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Itself,
    Qualities,
    Tags,
    Waveform,
    WaveformPng,
    WaveformSvg,
}

impl Part {
    /// The file of a URL's path, and which part of it.
    fn of(uri_path: &str) -> Option<(FilePath, Self)> {
        let rest = uri_path.strip_prefix(PREFIX)?;
        if let Some(path) = FilePath::from_url(rest) {
            return Some((path, Self::Itself));
        }
        let (path, end) = rest.rsplit_once('/')?;
        let part = match end {
            "qualities" => Self::Qualities,
            "tags" => Self::Tags,
            "waveform" => Self::Waveform,
            "waveform.png" => Self::WaveformPng,
            "waveform.svg" => Self::WaveformSvg,
            _ => return None,
        };
        Some((FilePath::from_url(path)?, part))
    }
}

/// A file that is there, its path, and who asks for it.
pub(super) struct Named {
    path: FilePath,
    file: Arc<OpenFile>,
    by: Asker,
}

impl Named {
    async fn find(api: &Api, path: FilePath, by: Asker) -> ApiResult<Self> {
        let file = api.streams.file(&path).await?;
        Ok(Self { path, file, by })
    }
}

fn no_such_part() -> ApiError {
    let message =
        "there is no such audio file, or no such part of one: qualities, tags, waveform, waveform.png, waveform.svg";
    ApiError::new(ErrorCode::NotFound, message)
}

async fn get_part(State(api): State<Arc<Api>>, OriginalUri(uri): OriginalUri, request: Request) -> ApiResult<Response> {
    let found = Part::of(uri.path());
    let (mut parts, _) = request.into_parts();
    let is_signed = Query::<Signature>::try_from_uri(&uri).is_ok_and(|Query(query)| query.sig.is_some());
    let by = match &found {
        // A page shows pictures to whoever may play: `<img>` sends no token.
        Some((path, Part::Waveform | Part::WaveformPng | Part::WaveformSvg)) if is_signed => {
            check_link(&api, path, &uri)?;
            Asker::Address(ClientAddress::from_request_parts(&mut parts, &api).await?.limit_key())
        }
        // Who may not know says so first, whether there is something or not.
        _ => {
            let Caller(caller) = Caller::from_request_parts(&mut parts, &api).await?;
            if let Some((path, _)) = &found {
                api.recordings.check_file(&caller, path).await?;
            }
            Asker::Account(caller.id)
        }
    };
    let (path, part) = found.ok_or_else(no_such_part)?;
    let named = Named::find(&api, path, by).await?;
    match part {
        Part::Itself => Ok(show_stream(&api, named).await?.into_response()),
        Part::Tags => Err(takes_no("GET")),
        Part::Qualities => Ok(list_qualities(&api, named).await.into_response()),
        Part::Waveform => {
            let query = query_of(&mut parts, &api).await?;
            Ok(get_waveform(&api, named, query).await?.into_response())
        }
        Part::WaveformPng => {
            let query = query_of(&mut parts, &api).await?;
            get_waveform_png(&api, named, query).await
        }
        Part::WaveformSvg => {
            let query = query_of(&mut parts, &api).await?;
            get_waveform_svg(&api, named, query).await
        }
    }
}

/// What a request with a body does: `POST` or `PUT`.
async fn write_part(
    State(api): State<Arc<Api>>,
    OriginalUri(uri): OriginalUri,
    Caller(caller): Caller,
    request: Request,
) -> ApiResult<Response> {
    let (path, part) = Part::of(uri.path()).ok_or_else(no_such_part)?;
    match (part, request.method()) {
        (Part::Itself, method) => {
            let replaces = method == Method::PUT;
            let (parts, body) = request.into_parts();
            let upload = (&parts.headers, body);
            Ok(match replaces {
                true => replace_stream(&api, path, &caller, upload).await?.into_response(),
                false => upload_stream(&api, path, &caller, upload).await?.into_response(),
            })
        }
        (Part::Qualities, &Method::POST) => {
            let Body(body) = Body::from_request(request, &api).await?;
            api.recordings.check_file(&caller, &path).await?;
            let named = Named::find(&api, path, Asker::Account(caller.id)).await?;
            Ok(order_quality(&api, named, body).await?.into_response())
        }
        (Part::Tags, &Method::PUT) => {
            let Body(body) = Body::from_request(request, &api).await?;
            Ok(set_stream_tags(&api, path, &caller, body).await?.into_response())
        }
        (_, method) => Err(takes_no(method.as_str())),
    }
}

async fn delete_part(
    State(api): State<Arc<Api>>,
    OriginalUri(uri): OriginalUri,
    Caller(caller): Caller,
) -> ApiResult<Response> {
    match Part::of(uri.path()) {
        Some((path, Part::Itself)) => Ok(delete_stream(&api, path, &caller).await?.into_response()),
        Some(_) => Err(takes_no("DELETE")),
        None => Err(no_such_part()),
    }
}

fn takes_no(method: &str) -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, format!("this path does not take {method}"))
}

async fn query_of<T: serde::de::DeserializeOwned + Send>(parts: &mut Parts, api: &Arc<Api>) -> ApiResult<T> {
    QueryOf::from_request_parts(parts, api).await.map(|QueryOf(query)| query)
}

/// What a signed link has.
#[derive(Deserialize)]
struct Signature {
    sig: Option<String>,
}

impl From<NotMade> for ApiError {
    fn from(why: NotMade) -> Self {
        match why {
            NotMade::Refused(why) => Self::invalid_as(StatusCode::UNPROCESSABLE_ENTITY, why),
            NotMade::Error(error) => error.into(),
        }
    }
}

/// How loud a file is (EBU R128).
#[derive(Serialize, ToSchema)]
struct LoudnessView {
    /// Of the whole, in LUFS; -70 for silence.
    #[schema(example = -14.2)]
    integrated_lufs: f64,
    /// How far loud and quiet parts are apart, in LU.
    #[schema(example = 6.1)]
    range_lu: f64,
    /// The highest value between samples, in dBTP.
    #[schema(example = -1.0)]
    true_peak_dbtp: f64,
}

impl From<Loudness> for LoudnessView {
    fn from(loudness: Loudness) -> Self {
        let Loudness { integrated_lufs, range_lu, true_peak_dbtp } = loudness;
        Self { integrated_lufs, range_lu, true_peak_dbtp }
    }
}

/// What was found out about a file by decoding it.
#[derive(Serialize, ToSchema)]
struct FactsView {
    /// How long it is, in seconds.
    #[schema(example = 183.4)]
    duration_s: f64,
    /// Its own sample rate in Hz.
    #[schema(example = 44_100)]
    sample_rate_hz: u32,
    /// Its own channels.
    #[schema(example = 2)]
    channels: u16,
    /// How loud it is.
    loudness: LoudnessView,
    /// Packets of it that are damaged, and silent in what is made of it.
    #[schema(example = 0)]
    damaged_packets: u32,
}

impl From<Facts> for FactsView {
    fn from(facts: Facts) -> Self {
        Self {
            duration_s: facts.seconds(),
            sample_rate_hz: facts.sample_rate_hz,
            channels: facts.channels,
            loudness: facts.loudness.into(),
            damaged_packets: facts.damaged_packets,
        }
    }
}

/// A quality of a file, and how it is.
#[derive(Serialize, ToSchema)]
pub(super) struct QualityView {
    /// `original`, `low`, `medium` or `high`.
    #[schema(example = "low")]
    quality: &'static str,
    /// `ready`; `absent`: it is made when somebody asks for it; `queued`, `running`; `refused`: it cannot be made;
    /// `failed`: not now.
    #[schema(example = "running")]
    state: &'static str,
    /// How much of it is made, from 0 to 1, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 0.42)]
    progress: Option<f64>,
    /// Why it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Its length in bytes, where it is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 731_204)]
    size_bytes: Option<u64>,
}

impl From<Made> for QualityView {
    fn from(made: Made) -> Self {
        let reason = match &made.state {
            MadeState::Refused(why) => Some(why.to_string()),
            _ => None,
        };
        let Made { product, state, bytes, progress } = made;
        let progress = progress.map(|progress| (progress * 1_000.0).round() / 1_000.0);
        Self { quality: product.name(), state: state.name(), progress, reason, size_bytes: bytes }
    }
}

/// A file with what is made of it.
#[derive(Serialize, ToSchema)]
pub(super) struct StreamView {
    /// Its path.
    #[schema(example = "subfolder/track3.mp3")]
    path: String,
    /// Its length in bytes.
    #[schema(example = 5_242_880)]
    size_bytes: u64,
    /// What it holds.
    #[schema(example = "audio/mpeg")]
    media_type: &'static str,
    /// Its tags.
    #[schema(example = json!(["jazz"]))]
    tags: Vec<String>,
    /// Who uploaded it; absent for what was put there otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_id: Option<UserId>,
    /// What was found out about it, once a quality or its waveform has been made.
    #[serde(skip_serializing_if = "Option::is_none")]
    facts: Option<FactsView>,
    /// Its qualities.
    qualities: Vec<QualityView>,
}

/// A file: what is known of it, and its qualities.
#[utoipa::path(get, path = "/api/streams/{path}", tag = "streams",
    params(("path" = String, Path, description = "The file's path in the folder, with its sub-folders")),
    responses((status = OK, description = "The file", body = Answer<StreamView>)))]
pub(super) async fn show_stream(api: &Api, named: Named) -> ApiResult<Answer<StreamView>> {
    let known = api.catalogue.file(&named.path).await?;
    let (owner_id, tags) = known.map_or((None, Vec::new()), |known| (known.owner, known.tags));
    let qualities = qualities_of(api, &named).await;
    let facts = api.streams.facts(&named.path, &named.file).await.map(FactsView::from);
    Ok(Answer::of(StreamView {
        tags,
        owner_id,
        path: named.path.to_string(),
        size_bytes: named.file.length,
        media_type: named.path.media_type(),
        facts,
        qualities,
    }))
}

/// A file's qualities: which are ready, and how far others are.
#[utoipa::path(get, path = "/api/streams/{path}/qualities", tag = "streams",
    params(("path" = String, Path, description = "The file's path in the folder, with its sub-folders")),
    responses((status = OK, description = "The qualities", body = Answer<Vec<QualityView>>)))]
pub(super) async fn list_qualities(api: &Api, named: Named) -> Answer<Vec<QualityView>> {
    Answer::of(qualities_of(api, &named).await)
}

async fn qualities_of(api: &Api, named: &Named) -> Vec<QualityView> {
    let original = QualityView {
        quality: "original",
        state: MadeState::Ready.name(),
        progress: None,
        reason: None,
        size_bytes: Some(named.file.length),
    };
    let mut views = vec![original];
    for quality in Quality::ALL {
        views.push(api.streams.look(&named.path, &named.file, Product::Quality(quality)).await.into());
    }
    views
}

/// Which quality.
#[derive(Deserialize, ToSchema)]
pub(super) struct QualityBody {
    /// `low`, `medium` or `high`.
    #[schema(example = "low")]
    quality: String,
}

/// Has a quality made ahead of its first listener.
#[utoipa::path(post, path = "/api/streams/{path}/qualities", tag = "streams", request_body = QualityBody,
    params(("path" = String, Path, description = "The file's path in the folder, with its sub-folders")),
    responses((status = OK, description = "It is there", body = Answer<QualityView>),
        (status = ACCEPTED, description = "It is being made, or waits to be", body = Answer<QualityView>),
        (status = UNPROCESSABLE_ENTITY, description = "`INVALID_INPUT`: it cannot be made of this file", body = ErrorBody),
        (status = TOO_MANY_REQUESTS, description = "`RATE_LIMITED`: too much of theirs waits to be made", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: too much waits to be made", body = ErrorBody)))]
pub(super) async fn order_quality(
    api: &Api,
    named: Named,
    body: QualityBody,
) -> ApiResult<(StatusCode, Answer<QualityView>)> {
    let Some(quality) = quality_of(&body.quality)? else {
        return Err(ApiError::invalid("the original is always there: name low, medium or high"));
    };
    let product = Product::Quality(quality);
    api.streams.order(&named.path, &named.file, product, named.by).await?;
    let made = api.streams.look(&named.path, &named.file, product).await;
    let status = if made.state == MadeState::Ready { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Answer::of(made.into())))
}

/// Which waveform.
#[derive(Deserialize)]
pub(super) struct WaveformQuery {
    samples_per_pixel: Option<u32>,
}

/// A file's waveform as numbers, in the form of `audiowaveform` and what shows it. It is made of the file at the first
/// request, which waits for it for a while.
#[utoipa::path(get, path = "/api/streams/{path}/waveform", tag = "streams",
    params(("path" = String, Path, description = "The file's path in the folder, with its sub-folders"),
        ("samples_per_pixel" = Option<u32>, Query, description = "480, 1920, 7680, 30720 or 122880 samples at 48 kHz; when absent the finest with at most 4000 points"),
        ("sig" = Option<String>, Query, description = "With `expires`, of a signed link to the file: instead of a token")),
    responses((status = OK, description = "The waveform", body = Answer<WaveformJson>),
        (status = UNPROCESSABLE_ENTITY, description = "`INVALID_INPUT`: the file cannot be decoded", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: it is being made", body = ErrorBody)))]
pub(super) async fn get_waveform(api: &Api, named: Named, query: WaveformQuery) -> ApiResult<Answer<WaveformJson>> {
    if let Some(zoom) = query.samples_per_pixel.filter(|zoom| !ZOOMS.contains(zoom)) {
        return Err(ApiError::invalid(format!("samples_per_pixel must be one of {ZOOMS:?}, not {zoom}")));
    }
    let (facts, peaks) = api.streams.peaks(&named.path, &named.file, named.by).await?;
    let zoom = query.samples_per_pixel.unwrap_or_else(|| waveform::zoom_of_a_screen(&peaks));
    let points = waveform::points(&peaks, zoom);
    if points > POINTS_MAX {
        let message = format!(
            "samples_per_pixel={zoom} makes {points} points, and {POINTS_MAX} are sent at most: take a larger one"
        );
        return Err(ApiError::invalid(message));
    }
    Ok(Answer::of(WaveformJson::new(&peaks, zoom, facts.seconds())))
}

/// How a picture is to be.
#[derive(Deserialize)]
pub(super) struct PictureQuery {
    width: Option<u32>,
    height: Option<u32>,
    color: Option<String>,
}

impl PictureQuery {
    fn checked(&self) -> ApiResult<Picture> {
        let (width, height) = (self.width.unwrap_or(WIDTH), self.height.unwrap_or(HEIGHT));
        if !(1..=WIDTH_MAX).contains(&width) || !(1..=HEIGHT_MAX).contains(&height) {
            let message = format!("a picture is from 1 to {WIDTH_MAX} pixels wide and from 1 to {HEIGHT_MAX} high");
            return Err(ApiError::invalid(message));
        }
        let color = self.color.as_deref().map_or(Some(COLOR), color_of);
        let color = color.ok_or_else(|| ApiError::invalid("color must be six hexadecimal digits, such as 3b82f6"))?;
        Ok(Picture { width, height, color })
    }
}

fn color_of(text: &str) -> Option<[u8; 3]> {
    if text.len() != 6 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let [_, red, green, blue] = u32::from_str_radix(text, 16).ok()?.to_be_bytes();
    Some([red, green, blue])
}

/// A file's waveform as a picture: PNG.
#[utoipa::path(get, path = "/api/streams/{path}/waveform.png", tag = "streams",
    params(("path" = String, Path, description = "The file's path in the folder, with its sub-folders"),
        ("width" = Option<u32>, Query, description = "Pixels, up to 4096; 1000 when absent"),
        ("height" = Option<u32>, Query, description = "Pixels, up to 1024; 200 when absent"),
        ("color" = Option<String>, Query, description = "Of the wave, `rrggbb`; what is around it is transparent"),
        ("sig" = Option<String>, Query, description = "With `expires`, of a signed link to the file: instead of a token")),
    responses((status = OK, description = "The picture", content_type = "image/png"),
        (status = UNPROCESSABLE_ENTITY, description = "`INVALID_INPUT`: the file cannot be decoded", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: it is being made", body = ErrorBody)))]
pub(super) async fn get_waveform_png(api: &Api, named: Named, query: PictureQuery) -> ApiResult<Response> {
    picture(api, named, query, "image/png", |picture, peaks| picture.png(peaks).map_err(|error| error.to_string()))
        .await
}

/// A file's waveform as a picture: SVG.
#[utoipa::path(get, path = "/api/streams/{path}/waveform.svg", tag = "streams",
    params(("path" = String, Path, description = "The file's path in the folder, with its sub-folders"),
        ("width" = Option<u32>, Query, description = "Columns, up to 4096; 1000 when absent"),
        ("height" = Option<u32>, Query, description = "Rows, up to 1024; 200 when absent"),
        ("color" = Option<String>, Query, description = "Of the wave, `rrggbb`; what is around it is transparent"),
        ("sig" = Option<String>, Query, description = "With `expires`, of a signed link to the file: instead of a token")),
    responses((status = OK, description = "The picture", content_type = "image/svg+xml"),
        (status = UNPROCESSABLE_ENTITY, description = "`INVALID_INPUT`: the file cannot be decoded", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: it is being made", body = ErrorBody)))]
pub(super) async fn get_waveform_svg(api: &Api, named: Named, query: PictureQuery) -> ApiResult<Response> {
    picture(api, named, query, "image/svg+xml", |picture, peaks| Ok(picture.svg(peaks).into_bytes())).await
}

async fn picture(
    api: &Api,
    named: Named,
    query: PictureQuery,
    media_type: &'static str,
    draw: impl FnOnce(&Picture, &Peaks) -> Result<Vec<u8>, String> + Send + 'static,
) -> ApiResult<Response> {
    let picture = query.checked()?;
    let (_, peaks) = api.streams.peaks(&named.path, &named.file, named.by).await?;
    let drawn = tokio::task::spawn_blocking(move || draw(&picture, &peaks)).await.map_err(|error| error.to_string());
    let drawn = drawn.flatten().map_err(|error| {
        tracing::error!(error, "a waveform could not be drawn");
        ApiError::new(ErrorCode::InternalError, "the waveform could not be drawn")
    })?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        // A picture of one content of one file; whoever may see it may keep it for a while.
        (header::CACHE_CONTROL, HeaderValue::from_static("private, max-age=300")),
        // An SVG that is opened by itself runs nothing.
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'")),
    ];
    Ok((headers, drawn).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_by_the_end_of_the_path() {
        let of = |path: &str| Part::of(path).map(|(path, part)| (path.to_string(), part));
        let file = |part| Some(("sub/a b.mp3".to_owned(), part));
        assert_eq!(of("/api/streams/sub/a%20b.mp3"), file(Part::Itself));
        assert_eq!(of("/api/streams/sub/a%20b.mp3/qualities"), file(Part::Qualities));
        assert_eq!(of("/api/streams/sub/a%20b.mp3/tags"), file(Part::Tags));
        assert_eq!(of("/api/streams/sub/a%20b.mp3/waveform"), file(Part::Waveform));
        assert_eq!(of("/api/streams/sub/a%20b.mp3/waveform.png"), file(Part::WaveformPng));
        assert_eq!(of("/api/streams/sub/a%20b.mp3/waveform.svg"), file(Part::WaveformSvg));
        for nothing in
            ["/api/streams/", "/api/streams/a.txt", "/api/streams/a.mp3/other", "/api/streams/../a.mp3", "/x"]
        {
            assert_eq!(of(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn colors_are_six_digits() {
        assert_eq!(color_of("3b82F6"), Some([0x3b, 0x82, 0xf6]));
        for wrong in ["", "fff", "#3b82f6", "+12345", "3b82f", "gggggg"] {
            assert_eq!(color_of(wrong), None, "{wrong}");
        }
    }
}
