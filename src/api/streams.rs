//! The library of audio files, and links to them.

#![expect(unused_qualifications, reason = "the macro that describes parameters writes them")]

use std::sync::Arc;

use antiphon_core::{gateway::ErrorCode, ids::UserId};
use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    answer::Answer,
    error::{ApiError, ApiResult, ErrorBody},
    extract::{Body, Caller, QueryOf},
    paging::{PageQuery, Paged},
    stream_file::{now_s, quality_of},
    stream_uploads::is_admin,
};
use crate::{
    store::{LibraryFile, LibraryQuery, SEARCH_WORDS_MAX, rfc3339},
    streaming::{Asker, FilePath, Link, NotMade, Product, TTL_MAX_S},
};

/// These routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list_streams)).routes(routes!(sign_stream))
}

/// Which file for how long.
#[derive(Deserialize, ToSchema)]
struct SignBody {
    /// The file's path, as the list has it.
    #[schema(example = "subfolder/track3.mp3")]
    path: String,
    /// How long the link is to be good, in seconds: up to 7 days.
    #[schema(example = 3_600, minimum = 1, maximum = 604_800)]
    ttl_s: u64,
    /// `low`, `medium`, `high` (Ogg Opus), or `original`, as when absent. One that is not made yet begins to be.
    #[schema(example = "medium")]
    quality: Option<String>,
}

/// A signed link.
#[derive(Serialize, ToSchema)]
struct LinkView {
    /// Relative to the server's address.
    #[schema(example = "/stream/subfolder/track3.mp3?expires=1700003600&sig=…")]
    url: String,
    /// When it runs out, in Unix seconds.
    #[schema(example = 1_700_003_600)]
    expires: u64,
}

/// Makes a link to a file, good for whoever has it.
#[utoipa::path(post, path = "/api/streams/sign", tag = "streams", request_body = SignBody,
    responses((status = OK, description = "The link", body = Answer<LinkView>),
        (status = NOT_FOUND, description = "`NOT_FOUND`: there is no such audio file", body = ErrorBody),
        (status = UNPROCESSABLE_ENTITY, description = "`INVALID_INPUT`: this quality cannot be made of the file", body = ErrorBody)))]
async fn sign_stream(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    Body(SignBody { path, ttl_s, quality }): Body<SignBody>,
) -> ApiResult<Answer<LinkView>> {
    if !(1..=TTL_MAX_S).contains(&ttl_s) {
        return Err(ApiError::invalid(format!("ttl_s must be from 1 to {TTL_MAX_S}, not {ttl_s}")));
    }
    let quality = quality.unwrap_or_default();
    let wanted = quality_of(&quality)?;
    let none = || ApiError::new(ErrorCode::NotFound, "there is no such audio file");
    let path = FilePath::new(&path).ok_or_else(none)?;
    api.recordings.check_file(&caller, &path).await?;
    let file = api.streams.file(&path).await?;
    if let Some(wanted) = wanted
        && let product = Product::Quality(wanted)
        && let Err(refused @ NotMade::Refused(_)) =
            api.streams.order(&path, &file, product, Asker::Account(caller.id)).await
    {
        // What cannot be ordered now is when it is played.
        return Err(refused.into());
    }
    let expires = now_s() + ttl_s;
    let sig = api.streams.secrets().sign(Link { path: &path, expires: &expires.to_string(), quality: &quality });
    let quality = if quality.is_empty() { quality } else { format!("&quality={quality}") };
    Ok(Answer::of(LinkView { url: format!("/stream/{}?expires={expires}&sig={sig}{quality}", path.to_url()), expires }))
}

/// What to look for.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SearchQuery {
    /// Up to six words, each of which the path or a tag must hold, whatever their case.
    #[param(example = "track")]
    search: Option<String>,
    /// A tag that they must have.
    #[param(example = "jazz")]
    tag: Option<String>,
    /// Whether only those that you uploaded are wanted.
    mine: Option<bool>,
}

/// A file of the library.
#[derive(Serialize, ToSchema)]
struct FileView {
    /// Its path: for `/api/streams/sign`.
    #[schema(example = "subfolder/track3.mp3")]
    path: String,
    /// Its length in bytes.
    #[schema(example = 5_242_880)]
    size_bytes: u64,
    /// What it holds.
    #[schema(example = "audio/mpeg")]
    media_type: &'static str,
    /// When it was changed, RFC 3339 UTC.
    modified_at: String,
    /// Its tags.
    #[schema(example = json!(["jazz"]))]
    tags: Vec<String>,
    /// Who uploaded it; absent for what was put there otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_id: Option<UserId>,
}

impl From<LibraryFile> for FileView {
    fn from(file: LibraryFile) -> Self {
        let LibraryFile { seen, owner, tags, .. } = file;
        Self {
            media_type: FilePath::new(&seen.path).map_or("application/octet-stream", |path| path.media_type()),
            path: seen.path,
            size_bytes: seen.size_bytes,
            modified_at: rfc3339(seen.modified),
            tags,
            owner_id: owner,
        }
    }
}

/// A page of the library.
#[derive(Serialize, ToSchema)]
struct FilesAnswer {
    /// Always true.
    #[schema(example = true)]
    success: bool,
    /// The files, and where they are among all.
    #[serde(flatten)]
    page: Paged<FileView>,
}

/// The audio files, by path. Those of recordings are there for administrators; others find them with their recording.
#[utoipa::path(get, path = "/api/streams", tag = "streams", params(PageQuery, SearchQuery),
    responses((status = OK, description = "A page of them", body = FilesAnswer)))]
async fn list_streams(
    State(api): State<Arc<Api>>,
    Caller(caller): Caller,
    QueryOf(page): QueryOf<PageQuery>,
    QueryOf(SearchQuery { search, tag, mine }): QueryOf<SearchQuery>,
) -> ApiResult<Json<FilesAnswer>> {
    let page = page.checked()?;
    let words: Vec<String> = search.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    if words.len() > SEARCH_WORDS_MAX {
        return Err(ApiError::invalid(format!("search takes up to {SEARCH_WORDS_MAX} words, not {}", words.len())));
    }
    let owner = mine.unwrap_or_default().then_some(caller.id);
    let with_recordings = is_admin(&api, &caller).await?;
    let query = LibraryQuery { words, tag: tag.map(|tag| tag.to_lowercase()), owner, with_recordings };
    let (files, total) = api.catalogue.page(&query, page.limit, page.offset()).await?;
    let views = files.into_iter().map(FileView::from).collect();
    Ok(Json(FilesAnswer { success: true, page: page.of(views, total) }))
}
