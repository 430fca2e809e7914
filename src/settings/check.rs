//! What must be right between settings.

use super::{
    declaration::Settings,
    reader::{Origin, Problem, Reader},
};

/// A shared secret below this many bytes can be guessed from one token (RFC 7518 3.2 asks for as many as the hash has).
const JWT_SECRET_BYTES_MIN: usize = 32;

/// The cluster's secret seals audio between nodes: as strong as its keys.
const CLUSTER_SECRET_BYTES_MIN: usize = 32;

pub(super) fn cross_checks(settings: &Settings, reader: &mut Reader<'_>) {
    let mut problem = |section: &str, key: &str, message: &str| {
        let origin = reader.origin(section, key);
        reader.problems.push(Problem { origin, message: format!("{section}.{key} {message}") });
    };
    let server = &settings.server;
    if server.port != 0 && server.port == server.websocket_port {
        problem("server", "websocket_port", "must differ from server.port (or be 0 for any free port)");
    }
    match (&server.tls_certificate, &server.tls_key) {
        (Some(_), None) => problem("server", "tls_certificate", "needs server.tls_key, the file of its private key"),
        (None, Some(_)) => problem("server", "tls_key", "needs server.tls_certificate, the file of its certificate"),
        _ => {}
    }
    if settings.redis.url.is_some() {
        cluster_checks(settings, &mut problem);
    }
    auth_checks(settings, &mut problem);
    if settings.streaming.secret_previous.is_some() && settings.streaming.secret.is_none() {
        problem("streaming", "secret_previous", "needs streaming.secret, the secret in force");
    }
    if settings.streaming.transcode_wait_s >= settings.http.request_timeout_s {
        problem(
            "streaming",
            "transcode_wait_s",
            "must be below http.request_timeout_s, after which a request is given up",
        );
    }
    bucket_checks(settings, &mut problem);
    notify_checks(settings, &mut problem);
    if settings.limits.max_users_per_channel > settings.limits.max_users_ceiling {
        problem("limits", "max_users_per_channel", "must not be above limits.max_users_ceiling");
    }
    let (auth, streaming) = (&settings.auth, &settings.streaming);
    for (section, key, secret) in [
        ("auth", "jwt_secret", &auth.jwt_secret),
        ("auth", "jwt_secret_previous", &auth.jwt_secret_previous),
        ("streaming", "secret", &streaming.secret),
        ("streaming", "secret_previous", &streaming.secret_previous),
    ] {
        if secret.as_ref().is_some_and(|secret| secret.expose().len() < JWT_SECRET_BYTES_MIN) {
            let signed = if section == "auth" { "token" } else { "link" };
            let message = format!(
                "{section}.{key} is shorter than {JWT_SECRET_BYTES_MIN} bytes: whoever sees one {signed} can guess it and make their own"
            );
            let origin = reader.origin(section, key);
            reader.warnings.push(Problem { origin, message });
        }
    }
    warn_of_disagreement(reader);
}

/// Who may come in, and by whose word.
fn auth_checks(settings: &Settings, problem: &mut impl FnMut(&str, &str, &str)) {
    let auth = &settings.auth;
    match (&auth.issuer, &auth.issuer_jwks) {
        (Some(_), None) => problem("auth", "issuer", "needs auth.issuer_jwks, where the issuer's public keys are"),
        (None, Some(_)) => problem("auth", "issuer_jwks", "needs auth.issuer, the `iss` of the issuer's tokens"),
        (_, Some(jwks)) if !is_safe_jwks(jwks) => {
            problem("auth", "issuer_jwks", "must be an https URL (http only on this machine) or the path of a file");
        }
        _ => {}
    }
    if auth.issuer_audience.is_some() && auth.issuer.is_none() {
        problem("auth", "issuer_audience", "needs auth.issuer");
    }
    if auth.jwt_secret_previous.is_some() && auth.jwt_secret.is_none() {
        problem("auth", "jwt_secret_previous", "needs auth.jwt_secret, the secret in force");
    }
}

/// A store for audio files is named in whole or not at all, and its copies get in nobody's way.
fn bucket_checks(settings: &Settings, problem: &mut impl FnMut(&str, &str, &str)) {
    let bucket = &settings.bucket;
    if bucket.endpoint.is_none() {
        for (key, is_set) in [
            ("name", bucket.name.is_some()),
            ("access_key", bucket.access_key.is_some()),
            ("secret_key", bucket.secret_key.is_some()),
        ] {
            if is_set {
                problem("bucket", key, "needs bucket.endpoint, the URL of the store");
            }
        }
        return;
    }
    for (what, is_set) in [
        ("needs bucket.name, the bucket's name", bucket.name.is_some()),
        ("needs bucket.access_key, whose requests are", bucket.access_key.is_some()),
        ("needs bucket.secret_key, which signs them", bucket.secret_key.is_some()),
    ] {
        if !is_set {
            problem("bucket", "endpoint", what);
        }
    }
    if bucket.virtual_host && bucket.name.as_ref().is_some_and(|name| name.contains('.')) {
        problem(
            "bucket",
            "virtual_host",
            "cannot be with a bucket.name that has dots: no certificate is for such hosts",
        );
    }
    if u64::from(bucket.cache_max_size_mb) << 20 < settings.streaming.max_file_size_bytes {
        problem("bucket", "cache_max_size_mb", "must hold a file of streaming.max_file_size_bytes");
    }
    if [settings.audio_dir(), settings.made_dir()].contains(&settings.bucket_dir()) {
        problem("bucket", "cache_dir", "must be a folder of its own: what is in it may be removed");
    }
}

/// What is sent outside, and by whom.
fn notify_checks(settings: &Settings, problem: &mut impl FnMut(&str, &str, &str)) {
    let notify = &settings.notify;
    match (&notify.smtp_url, &notify.smtp_from) {
        (Some(_), None) => problem("notify", "smtp_url", "needs notify.smtp_from (SMTP_FROM), the sender's address"),
        (None, Some(_)) => problem("notify", "smtp_from", "needs notify.smtp_url (SMTP_URL), the mail server"),
        (Some(url), Some(_)) if !is_safe_smtp(url.expose()) => {
            let message =
                "must be smtps: or have ?tls=required: only a server on this machine is spoken to without TLS";
            problem("notify", "smtp_url", message);
        }
        _ => {}
    }
    match (&notify.sms_url, &notify.sms_secret) {
        (Some(_), None) => problem("notify", "sms_url", "needs notify.sms_secret, which signs what is posted there"),
        (None, Some(_)) => problem("notify", "sms_secret", "needs notify.sms_url, where short messages are posted"),
        _ => {}
    }
}

/// Mail without TLS could be read, and its password taken, on the way.
fn is_safe_smtp(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("smtp://") else { return url.starts_with("smtps://") };
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let host = authority.split('/').next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = host
        .strip_prefix('[')
        .map_or_else(|| host.split(':').next().unwrap_or_default(), |rest| rest.split(']').next().unwrap_or_default());
    query.split('&').any(|pair| pair == "tls=required") || matches!(host, "localhost" | "127.0.0.1" | "::1")
}

/// What a node of a cluster needs, since the others must have the same.
fn cluster_checks(settings: &Settings, problem: &mut impl FnMut(&str, &str, &str)) {
    let is_postgres = settings.database.url.as_ref().is_some_and(|url| url.scheme().starts_with("postgres"));
    if !is_postgres {
        let message = "needs a database that all nodes share: set database.url (DATABASE_URL) to a postgres: URL, or take \
                       redis.url (REDIS_URL) away to run a single node";
        problem("redis", "url", message);
    }
    match &settings.cluster.secret {
        None => problem("redis", "url", "needs cluster.secret, the same on every node"),
        Some(secret) if secret.expose().len() < CLUSTER_SECRET_BYTES_MIN => {
            let message = format!("must have at least {CLUSTER_SECRET_BYTES_MIN} bytes");
            problem("cluster", "secret", &message);
        }
        Some(_) => {}
    }
    if settings.auth.jwt_secret.is_none() {
        problem("redis", "url", "needs auth.jwt_secret (JWT_SECRET), the same on every node");
    }
    let unreachable = settings.server.host.is_unspecified();
    for (key, is_set) in
        [("advertise", settings.cluster.advertise.is_some()), ("http_url", settings.cluster.http_url.is_some())]
    {
        if unreachable && !is_set {
            problem("cluster", key, "must be set where server.host names no one address: others must find this node");
        }
    }
}

/// Keys that come over plain HTTP from elsewhere can be replaced on the way.
fn is_safe_jwks(jwks: &str) -> bool {
    let Some(rest) = jwks.strip_prefix("http://") else { return true };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// Two variables for one setting that say different things: one of them is probably forgotten.
fn warn_of_disagreement(reader: &mut Reader<'_>) {
    for (winner, other) in reader.overridden() {
        let message = format!("is not used, because {winner} is set too and says otherwise");
        reader.warnings.push(Problem { origin: Origin::Environment(other), message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_goes_in_clear_within_this_machine_alone() {
        for safe in [
            "smtps://mail.example.org",
            "smtp://user:pa%40ss@mail.example.org:587?tls=required",
            "smtp://127.0.0.1:2525",
            "smtp://localhost",
            "smtp://[::1]:25/name",
        ] {
            assert!(is_safe_smtp(safe), "{safe}");
        }
        for other in [
            "smtp://mail.example.org",
            "smtp://127.0.0.1@mail.example.org",
            "smtp://mail.example.org?tls=opportunistic",
            "smtp://mail.example.org/localhost",
            "smtp:mail.example.org",
        ] {
            assert!(!is_safe_smtp(other), "{other}");
        }
    }
}
