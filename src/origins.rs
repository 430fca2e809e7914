//! Whose pages may call this server from a browser: one answer for HTTP (CORS) and the gateway.

use axum::http::Uri;

/// The origins that the operator allows.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    any: bool,
    named: Vec<String>,
}

impl Origins {
    /// Origins such as `https://app.example.org`; `*` among them allows all.
    #[must_use]
    pub fn new(allowed: &[String]) -> Self {
        Self { any: allowed.iter().any(|origin| origin == "*"), named: allowed.to_vec() }
    }

    /// Whether every page may call.
    #[must_use]
    pub fn any(&self) -> bool {
        self.any
    }

    /// Whether a page of `origin` may call: one that is allowed, or one that this machine serves itself.
    #[must_use]
    pub fn allow(&self, origin: &str) -> bool {
        self.any || is_local(origin) || self.named.iter().any(|named| named == origin)
    }
}

/// Whether an origin is a page that this machine serves itself.
fn is_local(origin: &str) -> bool {
    matches!(host_of(origin).as_deref(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

/// Whether an origin is a page of `host`, on whatever port: the page may come from one and the gateway be at another.
#[must_use]
pub fn is_of_host(origin: &str, host: &str) -> bool {
    host_of(origin).is_some_and(|of| of.eq_ignore_ascii_case(host))
}

/// The host that an origin or another URL names; an IPv6 address in brackets.
#[must_use]
pub fn host_of(origin: &str) -> Option<String> {
    let uri = origin.parse::<Uri>().ok()?;
    // Without a scheme it is no origin.
    uri.scheme()?;
    Some(uri.host()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_this_machine_are_local() {
        for local in ["http://localhost", "http://localhost:5173", "https://127.0.0.1:1", "http://[::1]:80"] {
            assert!(is_local(local), "{local}");
        }
        for other in [
            "null",
            "",
            "localhost",
            "http://localhost.evil.org",
            "http://evil.org/localhost",
            "http://evil.org:80",
            "localhost:x y",
        ] {
            assert!(!is_local(other), "{other}");
        }
    }

    #[test]
    fn named_origins_are_allowed_to_the_letter_and_a_star_allows_all() {
        let origins = Origins::new(&["https://app.example.org".to_owned()]);
        assert!(origins.allow("https://app.example.org") && origins.allow("http://localhost:1") && !origins.any());
        for other in ["http://app.example.org", "https://app.example.org:444", "https://evil.org", "null"] {
            assert!(!origins.allow(other), "{other}");
        }
        assert!(Origins::new(&["*".to_owned()]).allow("null"));
    }

    #[test]
    fn a_host_is_its_own_on_every_port() {
        assert!(is_of_host("http://voice.example.org:3000", "voice.example.org"));
        assert!(is_of_host("https://VOICE.example.org", "voice.example.org"));
        assert!(is_of_host("http://[2001:db8::1]:3000", "[2001:db8::1]"));
        for other in ["null", "https://voice.example.org.evil.org", "voice.example.org"] {
            assert!(!is_of_host(other, "voice.example.org"), "{other}");
        }
    }
}
