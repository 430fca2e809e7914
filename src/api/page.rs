//! The page at `/`, to talk in: the files of `web/`, which are part of the program. Nothing comes from elsewhere.

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use super::Api;

/// A file of the page.
struct File {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($path:literal: $name:literal $content_type:expr),+ $(,)?) => {
        &[$(File { path: $path, content_type: $content_type, bytes: include_bytes!(concat!("../../web/", $name)) }),+]
    };
}

const FILES: &[File] = files![
    "/": "index.html" HTML,
    "/style.css": "style.css" STYLE,
    "/icon.svg": "icon.svg" "image/svg+xml",
    // Browsers ask for it where a page names no icon, such as JSON that they show; the type says what it is.
    "/favicon.ico": "icon.svg" "image/svg+xml",
    "/main.js": "main.js" SCRIPT,
    "/api.js": "api.js" SCRIPT,
    "/bell.js": "bell.js" SCRIPT,
    "/capture.js": "capture.js" SCRIPT,
    "/chat.js": "chat.js" SCRIPT,
    "/dom.js": "dom.js" SCRIPT,
    "/peers.js": "peers.js" SCRIPT,
    "/people.js": "people.js" SCRIPT,
    "/preferences.js": "preferences.js" SCRIPT,
    "/quality.js": "quality.js" SCRIPT,
    "/room.js": "room.js" SCRIPT,
    "/session.js": "session.js" SCRIPT,
    "/stage.js": "stage.js" SCRIPT,
    "/sw.js": "sw.js" SCRIPT,
];

/// Scripts, styles and connections of this server alone, nothing inline, and no other page around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; \
     connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Microphone, camera and screen for the page itself alone.
const PERMISSIONS: &str = "microphone=(self), camera=(self), display-capture=(self), autoplay=(self), geolocation=()";

/// The routes.
pub(super) fn routes() -> Router<Arc<Api>> {
    FILES.iter().fold(Router::new(), |router, file| {
        router.route(file.path, get(move |headers: HeaderMap| async move { answer(file, &headers) }))
    })
}

/// The file, or that the browser's copy is still good. A browser asks every time: a new release shows at once.
fn answer(file: &'static File, headers: &HeaderMap) -> Response {
    let tag = tag(file.bytes);
    let fixed = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (HeaderName::from_static("permissions-policy"), HeaderValue::from_static(PERMISSIONS)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CONTENT_TYPE, HeaderValue::from_static(file.content_type)),
    ];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag));
    let answer = if is_known { StatusCode::NOT_MODIFIED.into_response() } else { file.bytes.into_response() };
    (fixed, [(header::ETAG, tag)], answer).into_response()
}

/// A strong entity tag (RFC 9110, section 8.8.3): the beginning of the bytes' SHA-256.
fn tag(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// Where the page's files are.
#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|file| file.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is left out of the table would be missed by browsers alone.
    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            let name = entry.expect("readable").file_name().into_string().expect("a plain name");
            let path = if name == "index.html" { "/".to_owned() } else { format!("/{name}") };
            assert!(FILES.iter().any(|file| file.path == path), "{name} is not served");
        }
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let file = &FILES[1];
        let mut headers = HeaderMap::new();
        let first = answer(file, &headers);
        assert_eq!(
            (first.status(), &first.headers()[header::CONTENT_TYPE]),
            (StatusCode::OK, &HeaderValue::from_static(STYLE))
        );
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(answer(file, &headers).status(), StatusCode::NOT_MODIFIED);
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"other\""));
        assert_eq!(answer(file, &headers).status(), StatusCode::OK);
    }
}
