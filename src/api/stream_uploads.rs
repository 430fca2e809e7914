//! Uploading, removing and tagging files of the library.

use std::time::{Duration, Instant};

use antiphon_core::gateway::{ErrorCode, Role, UserView};
use axum::{
    body::Body as RawBody,
    http::{HeaderMap, StatusCode, header},
};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{
    Api,
    advanced::audit,
    answer::Answer,
    error::{ApiError, ApiResult, ErrorBody},
};
use crate::{
    error::AppError,
    store::check_printable,
    streaming::{FilePath, Keeping, Upload},
    telemetry::metrics::{UploadOutcome, metrics},
    transcode::TranscodeError,
};

/// Tags of one file, and characters of one.
const TAGS_MAX: usize = 32;
const TAG_CHARS_MAX: usize = 64;

/// The body of an upload that is refused is taken all the same if it is no longer, and comes within this: whose connection ends
/// while they send may not get to read why. Longer ones are not waited for.
const REFUSED_BYTES_MAX: u64 = 4 * 1_024 * 1_024;
const REFUSED_PATIENCE: Duration = Duration::from_secs(5);

/// How long an upload may be slower than it should.
const SLOW_PATIENCE: Duration = Duration::from_secs(5);

/// A file that was uploaded.
#[derive(Serialize, ToSchema)]
pub(super) struct UploadedView {
    /// Its path: for `/api/streams/sign`.
    #[schema(example = "subfolder/track3.mp3")]
    path: String,
    /// Its length in bytes.
    #[schema(example = 5_242_880)]
    size_bytes: u64,
    /// What it holds.
    #[schema(example = "audio/mpeg")]
    media_type: &'static str,
}

/// Uploads a file to a path where there is none. The body is the file itself.
#[utoipa::path(post, path = "/api/streams/{path}", tag = "streams",
    params(("path" = String, Path, description = "The file's path in the folder, with its sub-folders, which are made")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The file"),
    responses((status = CREATED, description = "The file", body = Answer<UploadedView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: guests, and accounts without a quota, do not upload", body = ErrorBody),
        (status = CONFLICT, description = "`CONFLICT`: there is a file; `LIMIT_REACHED`: it is too long, or a quota is used up", body = ErrorBody),
        (status = TOO_MANY_REQUESTS, description = "`RATE_LIMITED`: the account uploads as many files as it may at once", body = ErrorBody),
        (status = UNPROCESSABLE_ENTITY, description = "`INVALID_INPUT`: it is not what its ending says, or cannot be decoded", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: as many upload as may, or the bucket is away", body = ErrorBody)))]
pub(super) async fn upload_stream(
    api: &Api,
    path: FilePath,
    user: &UserView,
    (headers, body): (&HeaderMap, RawBody),
) -> ApiResult<(StatusCode, Answer<UploadedView>)> {
    upload(api, path, user, (headers, body), false).await
}

/// Uploads a file to a path, instead of the one that you uploaded there. The body is the file itself.
#[utoipa::path(put, path = "/api/streams/{path}", tag = "streams",
    params(("path" = String, Path, description = "The file's path in the folder, with its sub-folders, which are made")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream", description = "The file"),
    responses((status = OK, description = "The file, which replaces another", body = Answer<UploadedView>),
        (status = CREATED, description = "The file, which is new", body = Answer<UploadedView>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: the file is not yours; guests, and accounts without a quota, do not upload", body = ErrorBody),
        (status = CONFLICT, description = "`LIMIT_REACHED`: it is too long, or a quota is used up", body = ErrorBody),
        (status = TOO_MANY_REQUESTS, description = "`RATE_LIMITED`: the account uploads as many files as it may at once", body = ErrorBody),
        (status = UNPROCESSABLE_ENTITY, description = "`INVALID_INPUT`: it is not what its ending says, or cannot be decoded", body = ErrorBody),
        (status = SERVICE_UNAVAILABLE, description = "`TEMPORARILY_UNAVAILABLE`: as many upload as may, or the bucket is away", body = ErrorBody)))]
pub(super) async fn replace_stream(
    api: &Api,
    path: FilePath,
    user: &UserView,
    (headers, body): (&HeaderMap, RawBody),
) -> ApiResult<(StatusCode, Answer<UploadedView>)> {
    upload(api, path, user, (headers, body), true).await
}

async fn upload(
    api: &Api,
    path: FilePath,
    user: &UserView,
    (headers, body): (&HeaderMap, RawBody),
    replace: bool,
) -> ApiResult<(StatusCode, Answer<UploadedView>)> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let (mut upload, keeping) = match begin(api, path, user, (announced, replace)).await {
        Ok(begun) => begun,
        Err(refused) => {
            if !headers.contains_key(header::EXPECT) && announced.is_some_and(|bytes| bytes <= REFUSED_BYTES_MAX) {
                discard(body).await;
            }
            return Err(refused);
        }
    };
    let path = &keeping.path;
    receive(&mut upload, body, api.settings.streaming.upload_bytes_per_s_min).await?;
    api.streams.check_upload(&upload, path).await.map_err(|error| refusal(&error))?;
    let size_bytes = upload.bytes();
    let is_new = api.catalogue.keep(upload, &keeping).await.inspect_err(not_kept)?;
    let streaming = &metrics().streaming;
    streaming.uploads.of(UploadOutcome::Kept).increment(1);
    streaming.uploaded_bytes.increment(size_bytes);
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Answer::of(UploadedView { media_type: path.media_type(), path: path.to_string(), size_bytes })))
}

/// Looks at all that can be known of an upload before any of it is sent.
async fn begin(
    api: &Api,
    path: FilePath,
    user: &UserView,
    (announced, replace): (Option<u64>, bool),
) -> ApiResult<(Upload, Keeping)> {
    api.recordings.check_change(&path)?;
    let keeping = Keeping { path, by: user.id, is_admin: may_upload(api, user).await?, replace };
    let room_bytes = api.catalogue.check_keeping(&keeping, announced.unwrap_or(0)).await.inspect_err(not_kept)?;
    if replace && keeping.is_admin {
        audit(api, user, "stream.replace", Some(keeping.path.to_string()), json!({})).await?;
    }
    Ok((api.streams.begin_upload(user.id, announced, room_bytes).await?, keeping))
}

async fn discard(body: RawBody) {
    let mut body = body.into_data_stream();
    let rest = async { while matches!(body.next().await, Some(Ok(_))) {} };
    let _ = tokio::time::timeout(REFUSED_PATIENCE, rest).await;
}

fn not_kept(error: &AppError) {
    let outcome = match error.code {
        ErrorCode::LimitReached => UploadOutcome::Quota,
        _ => UploadOutcome::Failed,
    };
    metrics().streaming.uploads.of(outcome).increment(1);
}

/// Whether somebody may upload at all, and whether as an administrator.
async fn may_upload(api: &Api, user: &UserView) -> ApiResult<bool> {
    if user.is_guest {
        return Err(ApiError::new(ErrorCode::PermissionDenied, "guests do not upload files; register an account"));
    }
    let is_admin = is_admin(api, user).await?;
    if !is_admin && api.catalogue.quotas().account_bytes_max == 0 {
        let message = "only administrators upload files here (streaming.upload_quota_mb_per_account is 0)";
        return Err(ApiError::new(ErrorCode::PermissionDenied, message));
    }
    Ok(is_admin)
}

pub(super) async fn is_admin(api: &Api, user: &UserView) -> ApiResult<bool> {
    match user.role {
        Role::Admin => Ok(api.require_admin(user).await.is_ok()),
        _ => Ok(false),
    }
}

/// Takes the body, as long as it comes with so many bytes a second.
async fn receive(upload: &mut Upload, body: RawBody, per_s_min: u32) -> ApiResult<()> {
    let (mut body, begun) = (body.into_data_stream(), Instant::now());
    loop {
        let patience = match per_s_min {
            0 => Duration::MAX,
            per_s_min => SLOW_PATIENCE + Duration::from_secs(upload.bytes() / u64::from(per_s_min)),
        };
        let next = tokio::time::timeout(patience.saturating_sub(begun.elapsed()), body.next());
        let Some(bytes) = next.await.map_err(|_| too_slow(per_s_min))? else { break };
        let bytes = bytes.map_err(|_| {
            metrics().streaming.uploads.of(UploadOutcome::BrokenOff).increment(1);
            ApiError::invalid("the body broke off before its end")
        })?;
        upload.take(bytes).await?;
    }
    Ok(upload.end().await?)
}

fn too_slow(per_s_min: u32) -> ApiError {
    metrics().streaming.uploads.of(UploadOutcome::TooSlow).increment(1);
    let message = format!(
        "the body comes with less than {per_s_min} bytes a second (streaming.upload_bytes_per_s_min), and others wait for the place"
    );
    ApiError::too_slow(message)
}

fn refusal(error: &TranscodeError) -> ApiError {
    metrics().streaming.uploads.of(UploadOutcome::NoSound).increment(1);
    if error.is_of_the_file() {
        return ApiError::invalid_as(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
    }
    tracing::warn!(%error, "an upload could not be looked at");
    ApiError::new(ErrorCode::InternalError, "the file could not be looked at; the server's log has more")
}

/// Removes a file, with its qualities and tags.
#[utoipa::path(delete, path = "/api/streams/{path}", tag = "streams",
    params(("path" = String, Path, description = "The file's path in the folder, with its sub-folders")),
    responses((status = NO_CONTENT, description = "It is gone"),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: it is not yours", body = ErrorBody)))]
pub(super) async fn delete_stream(api: &Api, path: FilePath, user: &UserView) -> ApiResult<StatusCode> {
    api.recordings.check_change(&path)?;
    let is_admin = is_admin(api, user).await?;
    if is_admin {
        audit(api, user, "stream.delete", Some(path.to_string()), json!({})).await?;
    }
    api.catalogue.remove(&path, user.id, is_admin).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tags.
#[derive(Deserialize, Serialize, ToSchema)]
pub(super) struct TagsBody {
    /// Up to 32, of up to 64 characters each, in lower case.
    #[schema(example = json!(["jazz", "live"]))]
    tags: Vec<String>,
}

/// Gives a file these tags instead of those it had.
#[utoipa::path(put, path = "/api/streams/{path}/tags", tag = "streams", request_body = TagsBody,
    params(("path" = String, Path, description = "The file's path in the folder, with its sub-folders")),
    responses((status = OK, description = "The tags as they are now", body = Answer<TagsBody>),
        (status = FORBIDDEN, description = "`PERMISSION_DENIED`: the file is not yours", body = ErrorBody)))]
pub(super) async fn set_stream_tags(
    api: &Api,
    path: FilePath,
    user: &UserView,
    body: TagsBody,
) -> ApiResult<Answer<TagsBody>> {
    let tags = checked(body.tags)?;
    api.recordings.check_file(user, &path).await?;
    let is_admin = is_admin(api, user).await?;
    if is_admin {
        audit(api, user, "stream.tag", Some(path.to_string()), json!({ "tags": tags })).await?;
    }
    api.catalogue.set_tags(&path, (user.id, is_admin), &tags).await?;
    Ok(Answer::of(TagsBody { tags }))
}

/// Tags as they are kept: trimmed, in lower case, each once, in order.
fn checked(tags: Vec<String>) -> ApiResult<Vec<String>> {
    let mut kept = Vec::new();
    for tag in tags {
        let tag = tag.trim().to_lowercase();
        check_printable("a tag", &tag, TAG_CHARS_MAX).map_err(ApiError::invalid)?;
        kept.push(tag);
    }
    kept.sort_unstable();
    kept.dedup();
    if kept.len() > TAGS_MAX {
        return Err(ApiError::invalid(format!("a file has up to {TAGS_MAX} tags")));
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_tidied_and_bounded() {
        let tags = |list: &[&str]| checked(list.iter().map(|tag| (*tag).to_owned()).collect());
        assert_eq!(tags(&[" Live", "jazz", "live "]).expect("tags"), ["jazz", "live"]);
        assert!(tags(&[""]).is_err() && tags(&["a\nb"]).is_err() && tags(&[&"x".repeat(65)]).is_err());
        let many: Vec<String> = (0..33).map(|index| index.to_string()).collect();
        assert!(checked(many).is_err());
    }
}
