//! Requests to the bucket: signed, bounded in time, tried again where that may help.

use std::{
    fs::File,
    io,
    path::Path,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use reqwest::{
    Body, Client, RequestBuilder, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, IF_MATCH, IF_NONE_MATCH, RANGE},
};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle, actions::ListObjectsV2};
use tokio_util::io::ReaderStream;

use super::{BucketConfig, BucketError, object::Object};
use crate::{
    http_client,
    telemetry::metrics::{BucketOutcome, metrics},
};

/// How often a request is tried that nobody answered. None is begun anew once the first has had its time.
const ATTEMPTS: u32 = 3;

/// Between two tries at first; then twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// After a request that failed nobody is asked for so long: what is on the disk is played at once meanwhile.
const LEFT_ALONE: Duration = Duration::from_secs(1);

/// How long a signature is good: clocks may differ.
const SIGNED_FOR: Duration = Duration::from_secs(900);

/// Whoever sends an object, or takes one, slower than that is given up.
const BYTES_PER_S_MIN: u64 = 64 * 1_024;

/// Read at once from a file that is sent.
const READ_BYTES: usize = 128 * 1_024;

/// The longest answer that is a text: a list of 1,000 keys of 1,024 bytes, escaped, and what stands about them.
const TEXT_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// The bucket as HTTP knows it.
pub(super) struct Requests {
    http: Client,
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
    timeout: Duration,
    /// Since when nobody answers, and when that was last found.
    away: Mutex<Option<(Instant, Instant)>>,
}

/// Where in the list of keys a page begins.
pub(super) enum From {
    /// Where the one before ended, as the bucket has it.
    Token(String),
    /// Behind a name.
    Name(&'static str),
}

/// An object of a list.
pub(super) struct Listed {
    /// Without the prefix.
    pub(super) name: String,
    pub(super) length: u64,
    /// As it is written: RFC 3339.
    pub(super) modified: String,
}

impl Requests {
    pub(super) fn new(config: &BucketConfig) -> Result<Self, BucketError> {
        let address = |error: &dyn std::fmt::Display| BucketError::Address(error.to_string());
        let endpoint = config.endpoint.parse().map_err(|error| address(&error))?;
        let style = if config.virtual_host { UrlStyle::VirtualHost } else { UrlStyle::Path };
        let (name, region) = (config.name.clone(), config.region.clone());
        let bucket = Bucket::new(endpoint, style, name, region).map_err(|error| address(&error))?;
        let http = http_client::builder().timeout(config.timeout).build();
        Ok(Self {
            http: http.map_err(BucketError::Client)?,
            bucket,
            credentials: Credentials::new(config.access_key.expose(), config.secret_key.expose()),
            prefix: config.prefix.clone(),
            timeout: config.timeout,
            away: Mutex::new(None),
        })
    }

    /// For how long nobody has answered.
    pub(super) fn away_for(&self) -> Option<Duration> {
        self.away.lock().map(|(since, _)| since.elapsed())
    }

    /// What there is under a name.
    pub(super) async fn head(&self, name: &str) -> Result<Option<Object>, BucketError> {
        let key = self.key(name);
        let answer = self
            .ask(self.timeout, || {
                Ok(self.http.head(self.bucket.head_object(Some(&self.credentials), &key).sign(SIGNED_FOR)))
            })
            .await;
        match answer {
            Ok(answer) => match Object::of(answer.headers()) {
                Some(object) => Ok(Some(object)),
                None => Err(BucketError::Garbled("it does not say an object's length, time and entity tag".to_owned())),
            },
            Err(BucketError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins to read an object from a byte on.
    pub(super) async fn read(&self, name: &str, object: &Object, from: u64) -> Result<Response, BucketError> {
        let key = self.key(name);
        let answer = self
            .ask(self.timeout, || {
                let url = self.bucket.get_object(Some(&self.credentials), &key).sign(SIGNED_FOR);
                let request = self.http.get(url).header(IF_MATCH, &object.etag).timeout(self.time_for(object.length));
                Ok(if from > 0 { request.header(RANGE, format!("bytes={from}-")) } else { request })
            })
            .await?;
        // Not every server heeds If-Match, or ranges.
        let is_same = answer.headers().get(reqwest::header::ETAG).is_some_and(|etag| etag == object.etag.as_str());
        let is_rest = from == 0 || answer.status() == StatusCode::PARTIAL_CONTENT;
        if is_same && is_rest { Ok(answer) } else { Err(BucketError::Changed) }
    }

    /// Writes a file under a name, which is to be free if it is `new`.
    pub(super) async fn write(
        &self,
        name: &str,
        file: &Path,
        (length, media_type): (u64, &'static str),
        new: bool,
    ) -> Result<(), BucketError> {
        let key = self.key(name);
        let time = self.time_for(length);
        self.ask(time, || {
            let url = self.bucket.put_object(Some(&self.credentials), &key).sign(SIGNED_FOR);
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_LENGTH, length.into());
            headers.insert(CONTENT_TYPE, reqwest::header::HeaderValue::from_static(media_type));
            if new {
                headers.insert(IF_NONE_MATCH, reqwest::header::HeaderValue::from_static("*"));
            }
            let file = tokio::fs::File::from_std(File::open(file)?);
            let body = Body::wrap_stream(ReaderStream::with_capacity(file, READ_BYTES));
            Ok(self.http.put(url).headers(headers).body(body).timeout(time))
        })
        .await
        .map(drop)
    }

    /// Removes an object, if there is one.
    pub(super) async fn remove(&self, name: &str) -> Result<(), BucketError> {
        let key = self.key(name);
        let removed = self
            .ask(self.timeout, || {
                Ok(self.http.delete(self.bucket.delete_object(Some(&self.credentials), &key).sign(SIGNED_FOR)))
            })
            .await;
        match removed {
            Ok(_) | Err(BucketError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Up to `most` objects under a name, which may be empty, from there on, and where the next begin.
    pub(super) async fn list(
        &self,
        under: &str,
        from: Option<&From>,
        most: usize,
    ) -> Result<(Vec<Listed>, Option<From>), BucketError> {
        let answer = self
            .ask(self.timeout, || {
                let mut list = self.bucket.list_objects_v2(Some(&self.credentials));
                list.with_prefix(self.key(under));
                list.with_max_keys(most);
                match from {
                    None => {}
                    Some(From::Token(token)) => list.with_continuation_token(token.as_str()),
                    Some(From::Name(name)) => list.with_start_after(self.key(name)),
                }
                Ok(self.http.get(list.sign(SIGNED_FOR)))
            })
            .await?;
        let text = text_of(answer, TEXT_BYTES_MAX).await?;
        let list = ListObjectsV2::parse_response(&text).map_err(|error| BucketError::Garbled(error.to_string()))?;
        let listed = list.contents.into_iter().filter_map(|object| {
            let name = object.key.strip_prefix(&self.prefix)?.to_owned();
            Some(Listed { name, length: object.size?, modified: object.last_modified? })
        });
        Ok((listed.collect(), list.next_continuation_token.map(From::Token)))
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// How long so many bytes may take.
    fn time_for(&self, bytes: u64) -> Duration {
        self.timeout + Duration::from_secs(bytes / BYTES_PER_S_MIN)
    }

    /// Asks, and again where nobody answers within `patience`; what is answered is counted, and what is no success an error.
    async fn ask(
        &self,
        patience: Duration,
        mut request: impl FnMut() -> io::Result<RequestBuilder>,
    ) -> Result<Response, BucketError> {
        if let Some((_, found)) = *self.away.lock()
            && found.elapsed() < LEFT_ALONE
        {
            return Err(BucketError::Away("it could not be a moment ago".to_owned()));
        }
        let (begun, mut pause, mut tries) = (Instant::now(), PAUSE, 1);
        let answered = loop {
            let answered = self.send(request()?, patience).await;
            let is_away = matches!(answered, Err(BucketError::Away(_)));
            if !is_away || tries == ATTEMPTS || begun.elapsed() >= self.timeout {
                break answered;
            }
            tokio::time::sleep(pause).await;
            (pause, tries) = (pause * 2, tries + 1);
        };
        self.note(&answered);
        answered
    }

    async fn send(&self, request: RequestBuilder, patience: Duration) -> Result<Response, BucketError> {
        let answer = tokio::time::timeout(patience, request.send()).await;
        let answer = answer.map_err(|_| BucketError::Away("no answer in time".to_owned()))?.map_err(away)?;
        let status = answer.status();
        match status {
            _ if status.is_success() => Ok(answer),
            StatusCode::NOT_FOUND => match code_of(answer).await.as_deref() {
                Some("NoSuchBucket") => Err(BucketError::Refused("NoSuchBucket".to_owned())),
                _ => Err(BucketError::Missing),
            },
            StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => Err(BucketError::Changed),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Err(BucketError::Away(status.to_string())),
            _ if status.is_server_error() => Err(BucketError::Away(status.to_string())),
            _ => {
                let code = code_of(answer).await;
                Err(BucketError::Refused(code.map_or_else(|| status.to_string(), |code| format!("{status}, {code}"))))
            }
        }
    }

    /// Counts how a request ended, and says when the bucket goes and comes.
    fn note(&self, answered: &Result<Response, BucketError>) {
        let outcome = match answered {
            Ok(_) => BucketOutcome::Done,
            Err(BucketError::Missing) => BucketOutcome::Missing,
            Err(BucketError::Changed) => BucketOutcome::Changed,
            Err(BucketError::Away(_)) => BucketOutcome::Away,
            Err(_) => BucketOutcome::Refused,
        };
        metrics().streaming.bucket_requests.of(outcome).increment(1);
        let mut away = self.away.lock();
        match (answered, *away) {
            (Err(error @ (BucketError::Away(_) | BucketError::Refused(_))), known) => {
                let now = Instant::now();
                if known.is_none() {
                    tracing::warn!(%error, "the bucket of audio files cannot be used");
                }
                *away = Some((known.map_or(now, |(since, _)| since), now));
            }
            (_, Some((since, _))) => {
                tracing::info!(away_s = since.elapsed().as_secs(), "the bucket of audio files can be used again");
                *away = None;
            }
            (_, None) => {}
        }
    }
}

/// An error without its URL, which has the signature, and with what it is because of: the outermost says little.
pub(super) fn away(error: reqwest::Error) -> BucketError {
    let error = error.without_url();
    let causes = std::iter::successors(std::error::Error::source(&error), |error| error.source());
    BucketError::Away(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")))
}

/// The code of an error, as S3 has it in its text. An answer to HEAD has none.
async fn code_of(answer: Response) -> Option<String> {
    let text = text_of(answer, 16 * 1_024).await.ok()?;
    let (code, _) = text.split_once("<Code>")?.1.split_once("</Code>")?;
    code.chars().all(|c| c.is_ascii_alphanumeric()).then(|| code.to_owned())
}

async fn text_of(mut answer: Response, bytes_max: usize) -> Result<String, BucketError> {
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(away)? {
        if text.len() + chunk.len() > bytes_max {
            return Err(BucketError::Garbled(format!("it has more than {bytes_max} bytes")));
        }
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).map_err(|error| BucketError::Garbled(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Secret;

    fn requests(virtual_host: bool) -> Requests {
        let config = BucketConfig {
            endpoint: "https://s3.eu-central-1.example.org".to_owned(),
            name: "library".to_owned(),
            region: "eu-central-1".to_owned(),
            access_key: Secret::new("key"),
            secret_key: Secret::new("secret"),
            virtual_host,
            prefix: "audio/".to_owned(),
            folder: "unused".into(),
            bytes_max: 0,
            timeout: Duration::from_secs(1),
        };
        Requests::new(&config).expect("an address")
    }

    #[test]
    fn the_buckets_name_stands_in_the_path_or_in_the_host_and_is_signed_there() {
        for (virtual_host, expected) in [
            (false, "https://s3.eu-central-1.example.org/library/audio/one%20and/two.mp3"),
            (true, "https://library.s3.eu-central-1.example.org/audio/one%20and/two.mp3"),
        ] {
            let requests = requests(virtual_host);
            let key = requests.key("one and/two.mp3");
            let url = requests.bucket.get_object(Some(&requests.credentials), &key).sign(SIGNED_FOR);
            let (address, query) = url.as_str().split_once('?').expect("signed");
            assert_eq!(address, expected);
            assert!(query.contains("X-Amz-SignedHeaders=host") && query.contains("%2Feu-central-1%2Fs3%2F"), "{query}");
            let list = requests.bucket.list_objects_v2(Some(&requests.credentials)).sign(SIGNED_FOR);
            assert_eq!(list.path(), if virtual_host { "/" } else { "/library/" }, "{list}");
        }
    }
}
